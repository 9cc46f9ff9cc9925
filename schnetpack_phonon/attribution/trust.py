"""Can one believe an attribution: completeness, faithfulness, stability and the control."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from schnetpack_phonon.attribution.results import (
    ATTRIBUTIONS,
    BONDS,
    FAITHFULNESS,
    FROZEN_SHARE,
    SHARES,
    why_no_shares,
)

#: Bootstrap intervals of fewer structures are too narrow to found a claim on.
_FEW = 10


def missed_shares(structures: pd.DataFrame) -> np.ndarray:
    """How much of each structure's change its bonds miss, shape=(n_structures,).

    Of changes below a tenth of the mean one, in units of that.

    Args:
        structures: ``change``, ``residual``.
    """
    change, residual = (structures[k].abs().to_numpy() for k in ("change", "residual"))
    scale = np.maximum(change, 0.1 * change.mean())
    return np.divide(residual, scale, out=np.zeros_like(residual), where=scale > 0)


def correlation(table: pd.DataFrame, both_ends: bool = False) -> float:
    """Correlation of ``predicted`` and ``actual`` within structures (about each one's mean).

    With ``both_ends``, of ``predicted`` and the mean of ``actual`` and ``displaced``.
    """
    pairs = table[["predicted", "actual"]]
    if both_ends:
        pairs = pairs.assign(actual=(table["actual"] + table["displaced"]) / 2)
    centred = pairs - pairs.groupby(table["index"]).transform("mean")
    predicted, actual = centred.to_numpy(dtype=float).T
    norm = np.sqrt((predicted**2).sum() * (actual**2).sum())
    return float(predicted @ actual / norm) if norm > 0 else float("nan")


def stability(bonds: Sequence[pd.DataFrame]) -> float:
    """Mean correlation of the bonds' attributions between pairs of models.

    Args:
        bonds: the table of bonds of each model, for the same structures.
    """
    keys = ["index", "i", "j", "image_x", "image_y", "image_z"]
    columns = [table.set_index(keys)["attribution"] for table in bonds]
    return float(np.mean([a.corr(b) for a, b in combinations(columns, 2)]))


def apart(one: pd.Series, other: pd.Series) -> bool:
    """Whether the intervals of two shares, ``low`` to ``high``, do not overlap."""
    return bool(one["low"] > other["high"] or one["high"] < other["low"])


def verdict(
    structures: pd.DataFrame,
    shares: pd.DataFrame,
    faithfulness: pd.DataFrame,
    seeds: float | None = None,
    unseen: Sequence[str] = (),
    kind: str = "displacement",
) -> list[str]:
    """What the figures support, in words.

    Args:
        structures: ``model``, ``structure``, ``change``, ``residual``, ``unit``.
        shares: ``structure``, ``model``, ``bond_type``, ``share``, ``low``, ``high``.
        faithfulness: of :func:`freezing`; may be empty.
        seeds: :func:`stability` across runs, None for one run.
        unseen: terms of the model that attribution does not see.
        kind: of attribution.

    Returns:
        Sentences.
    """
    trained = structures[structures["model"] == "trained"]
    lines = [_completeness(trained)]
    if len(faithfulness):
        lines.append(_faithfulness(faithfulness))
    lines.append(
        "Stability: one run only, other seeds may share the change otherwise."
        if seeds is None
        else f"Stability: single bonds of different runs correlate with r = {seeds:.2f}."
    )
    if kind == "mask":
        lines.append("Masks count from no bonds at all, which is far from all training data.")
    else:
        for name, own in trained.groupby("structure"):
            lines.append(f"{name}: {_leading(own, shares[shares['structure'] == name])}")
    if unseen:
        lines.append(f"Not seen, as they are no bonds within the cutoff: {', '.join(unseen)}.")
    return lines


def _completeness(trained: pd.DataFrame) -> str:
    if trained["residual"].isna().all():
        return "Completeness: this method does not add up to the change of the prediction."
    relative = missed_shares(trained)
    missed = int((relative > 0.01).sum())
    text = f"Completeness: the bonds miss at most {relative.max():.2%} of a structure's change"
    return f"{text} ({missed} of {len(trained)} miss more than 1 %)." if missed else f"{text}."


def _faithfulness(frozen: pd.DataFrame) -> str:
    r = correlation(frozen)
    if np.isnan(r):
        return "Faithfulness: undefined, freezing bonds does not change the prediction."
    words = "well" if r >= 0.9 else "roughly" if r >= 0.7 else "badly"
    return (
        f"Faithfulness: the bonds' attributions foretell {words} what freezing {FROZEN_SHARE:.0%} "
        f"of the bonds does to the prediction (r = {r:.2f}, and {correlation(frozen, True):.2f} "
        "averaged with displacing the same bonds in the ideal crystal; structures: "
        f"{frozen['index'].nunique()})."
    )


def _leading(structures: pd.DataFrame, shares: pd.DataFrame) -> str:
    why = why_no_shares(*structures[["change", "residual"]].to_numpy(dtype=float).T)
    if why:
        return f"no shares of variance: {why}."
    trained, control = (
        shares[shares["model"] == m].set_index("bond_type") for m in ("trained", "untrained")
    )
    ranked = trained.sort_values("share", ascending=False)
    name, top, rest = ranked.index[0], ranked.iloc[0], ranked.iloc[1:]
    few = len(structures) < _FEW
    text = f"{name} carries {_in_words(top, few)} of the variance"
    if not few:
        unclear = len(rest) and rest["high"].max() >= top["low"]
        others = (
            f"not clearly more than {rest['high'].idxmax()}" if unclear else "more than any other"
        )
        text += f", {others}"
    if name not in control.index:
        return f"{text}; there is no untrained control."
    same = control.loc[name]
    text += f"; untrained weights give {_in_words(same, few)}"
    if few:
        return f"{text} ({len(structures)} structures are too few for intervals, or a claim)."
    if not apart(top, same):
        return f"{text}, which overlaps: not clearly learnt."
    return f"{text}: training made the difference."


def _in_words(group: pd.Series, few: bool) -> str:
    text = f"{group['share']:.2f}"
    return text if few else f"{text} [{group['low']:.2f}, {group['high']:.2f}]"


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
