"""Can one believe the attributions of several models: their trust figures side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from schnetpack_phonon.report import ATTRIBUTIONS, BONDS, FAITHFULNESS, SHARES
from schnetpack_phonon.trust import apart, correlation, missed_shares, stability


def trust_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Trust figures by model, of the runs with the largest number of labels.

    Args:
        runs: as :func:`.group_runs` gives them.

    Returns:
        A row a model whose runs hold attributions: ``model``, ``n_runs``, ``n_structures`` (of all
        runs), ``missed`` (the largest part of a structure's change that its bonds miss; NaN for
        methods that do not add up), ``faithfulness`` and ``faithfulness_sd`` (mean and standard
        deviation over runs of :func:`.correlation`), ``stability`` (:func:`.stability`
        of runs with the same structures, NaN for fewer than two), ``n_clear`` of ``n_leading``
        (crystals of all runs whose leading bond type has an interval apart from that of the
        untrained control).
    """
    rows = []
    chosen = runs[runs["n_train"] == runs["n_train"].max()]
    for model, own in chosen.groupby("model", sort=False):
        folders = [Path(run) for run in own["run"] if (Path(run) / ATTRIBUTIONS).is_file()]
        if folders:
            rows.append({"model": model, **_figures(folders)})
    return pd.DataFrame(rows)


def trust_text(table: pd.DataFrame) -> pd.DataFrame:
    """The figures as people read them."""
    return pd.DataFrame(
        [
            {
                "trained on": row["model"],
                "runs": str(row["n_runs"]),
                "structures": str(row["n_structures"]),
                "bonds miss at most": _said(row["missed"], ".2%"),
                "faithfulness r": _said(row["faithfulness"], ".2f")
                + (f" ± {row['faithfulness_sd']:.2f}" if row["faithfulness_sd"] >= 0 else ""),
                "r between seeds": _said(row["stability"], ".2f"),
                "clear of untrained": f"{row['n_clear']} of {row['n_leading']}",
            }
            for row in table.to_dict("records")
        ]
    )


def _figures(folders: list[Path]) -> dict[str, Any]:
    structures = [pd.read_csv(folder / ATTRIBUTIONS) for folder in folders]
    trained = [table[table["model"] == "trained"] for table in structures]
    frozen = [pd.read_csv(f / FAITHFULNESS) for f in folders if (f / FAITHFULNESS).is_file()]
    r = pd.Series([correlation(table) for table in frozen], dtype=float)
    clear = [one for folder in folders for one in _clear(folder / SHARES)]
    return {
        "n_runs": len(folders),
        "n_structures": sum(map(len, trained)),
        "missed": max(float(np.max(missed_shares(table))) for table in trained),
        "faithfulness": r.mean(),
        "faithfulness_sd": r.std(),
        "stability": _between(folders),
        "n_clear": sum(clear),
        "n_leading": len(clear),
    }


def _between(folders: list[Path]) -> float:
    """Of the runs that attributed what the first one did."""
    tables = [pd.read_csv(f / BONDS) for f in folders if (f / BONDS).is_file()]
    alike = [t for t in tables if set(t["index"]) == set(tables[0]["index"])]
    return stability(alike) if len(alike) > 1 else np.nan


def _clear(path: Path) -> list[bool]:
    """Of each crystal with shares and a control."""
    if not path.is_file():
        return []
    shares = pd.read_csv(path).dropna(subset="share")
    found = []
    for _, own in shares.groupby("structure"):
        trained, control = (
            own[own["model"] == name].set_index("bond_type") for name in ("trained", "untrained")
        )
        if trained.empty or (leading := str(trained["share"].idxmax())) not in control.index:
            continue
        found.append(apart(trained.T[leading], control.T[leading]))
    return found


def _said(value: float, form: str) -> str:
    return "not known" if np.isnan(value) else format(value, form)
