"""Checks of attributions: completeness, faithfulness, stability and the untrained control."""

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
    FEW,
    SHARES,
    why_no_shares,
)

#: Share of the bonds in a subset. All subsets have one size: with others, even random attributions
#: would seem faithful, as larger subsets have larger effects.
SUBSET_SHARE = 0.3


def missed_shares(structures: pd.DataFrame) -> np.ndarray:
    """Residual of each structure relative to its change, shape=(n_structures,).

    For changes below a tenth of the mean one, relative to a tenth of the mean. NaN where that is
    not resolved: a rounding error of the model.

    Args:
        structures: ``change``, ``residual`` and, unless of an earlier version, ``resolution``.
    """
    change, residual = (structures[k].abs().to_numpy() for k in ("change", "residual"))
    scale = np.maximum(change, 0.1 * change.mean())
    resolved = scale > np.asarray(structures.get("resolution", 0.0))
    return np.divide(residual, scale, out=np.full_like(residual, np.nan), where=resolved)


def correlation(table: pd.DataFrame, both_ends: bool = False) -> float:
    """Correlation of ``predicted`` and ``actual`` within structures (about the mean of each).

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
    """Mean correlation of the attributions of bonds between pairs of models.

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
    """Conclusions that the checks support, in sentences.

    Args:
        structures: ``model``, ``structure``, ``change``, ``residual``, ``resolution``, ``unit``.
        shares: ``structure``, ``model``, ``bond_type``, ``share``, ``low``, ``high``.
        faithfulness: of :func:`.subset_effects`; may be empty.
        seeds: :func:`stability` over runs, None for one run.
        unseen: terms of the model that attribution does not see.
        kind: of attribution.
    """
    trained = structures[structures["model"] == "trained"]
    lines = [_completeness(trained)]
    if len(faithfulness):
        lines.append(_faithfulness(faithfulness))
    lines.append(
        "Stability: one run only; other seeds may give other shares."
        if seeds is None
        else f"Stability: bonds of different runs correlate with r = {seeds:.2f}."
    )
    if kind == "mask":
        lines.append("Masks start from no bonds at all, which is far from all training data.")
    else:
        for name, own in trained.groupby("structure"):
            lines.append(f"{name}: {_leading(own, shares[shares['structure'] == name])}")
    if unseen:
        terms = ", ".join(unseen)
        lines.append(f"Not included, since these are not bonds within the cutoff: {terms}.")
    return lines


def _completeness(trained: pd.DataFrame) -> str:
    if trained["residual"].isna().all():
        return "Completeness: bonds of this method do not add up to the change of the prediction."
    relative = missed_shares(trained)
    n, unresolved = int((relative > 0.01).sum()), int(np.isnan(relative).sum())
    if unresolved == len(trained):
        return (
            "Completeness: not resolved, the property changes by rounding errors of the model only."
        )
    text = f"Completeness: the bonds miss at most {np.nanmax(relative):.2%} of a structure's change"
    parts = [f"{n} of {len(trained)} miss more than 1 %"] if n else []
    parts += [f"not resolved for {unresolved} of {len(trained)}"] if unresolved else []
    return f"{text} ({', '.join(parts)})." if parts else f"{text}."


def _faithfulness(table: pd.DataFrame) -> str:
    r = correlation(table)
    if np.isnan(r):
        return "Faithfulness: undefined, resetting bonds does not change the prediction."
    words = "well" if r >= 0.9 else "roughly" if r >= 0.7 else "poorly"
    return (
        f"Faithfulness: attributions predict {words} the effect of resetting {SUBSET_SHARE:.0%} of "
        f"the bonds to their ideal vectors (r = {r:.2f}, and {correlation(table, True):.2f} "
        "averaged with displacing the same bonds in the ideal crystal; structures: "
        f"{table['index'].nunique()})."
    )


def _leading(structures: pd.DataFrame, shares: pd.DataFrame) -> str:
    why = why_no_shares(*structures[["change", "residual"]].to_numpy(dtype=float).T)
    if why:
        return f"no shares of variance: {why}."
    trained, control = _with_control(shares)
    ranked = trained.sort_values("share", ascending=False)
    name, top, rest = ranked.index[0], ranked.iloc[0], ranked.iloc[1:]
    few = len(structures) < FEW
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
        return f"{text} ({len(structures)} structures are too few for intervals or conclusions)."
    if not apart(top, same):
        return f"{text}; the intervals overlap: no clear effect of training."
    return f"{text}: an effect of training."


def _with_control(shares: pd.DataFrame) -> list[pd.DataFrame]:
    """Shares of one crystal by the trained and by the untrained model, indexed by bond type."""
    models = "trained", "untrained"
    return [shares[shares["model"] == name].set_index("bond_type") for name in models]


def _in_words(group: pd.Series, few: bool) -> str:
    text = f"{group['share']:.2f}"
    return text if few else f"{text} [{group['low']:.2f}, {group['high']:.2f}]"


def checks_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Checks by model, of the runs with the largest number of labels.

    Args:
        runs: of :func:`.group_runs`.

    Returns:
        A row for each model whose runs hold attributions: ``model``, ``n_runs``, ``n_structures``
        (of all runs), ``missed`` (the largest of :func:`missed_shares`; NaN for methods that are
        not additive, or if no change is resolved), ``faithfulness`` and ``faithfulness_sd`` (mean
        and standard deviation over runs of :func:`correlation`), ``stability`` (of runs with the
        same structures, NaN for fewer than two), ``n_clear`` of ``n_leading`` (crystals of all runs
        whose leading bond type has an interval apart from that of the untrained control).
    """
    rows = []
    chosen = runs[runs["n_train"] == runs["n_train"].max()]
    for model, own in chosen.groupby("model", sort=False):
        folders = [Path(run) for run in own["run"] if (Path(run) / ATTRIBUTIONS).is_file()]
        if folders:
            rows.append({"model": model, **_of_runs(folders)})
    return pd.DataFrame(rows)


def checks_text(table: pd.DataFrame) -> pd.DataFrame:
    """:func:`checks_table` as text for a page."""
    return pd.DataFrame(
        [
            {
                "trained on": row["model"],
                "runs": str(row["n_runs"]),
                "structures": str(row["n_structures"]),
                "bonds miss at most": _or_unknown(row["missed"], ".2%"),
                "faithfulness r": _or_unknown(row["faithfulness"], ".2f")
                + (f" ± {row['faithfulness_sd']:.2f}" if row["faithfulness_sd"] >= 0 else ""),
                "r between seeds": _or_unknown(row["stability"], ".2f"),
                "clear of untrained": f"{row['n_clear']} of {row['n_leading']}",
            }
            for row in table.to_dict("records")
        ]
    )


def _of_runs(folders: list[Path]) -> dict[str, Any]:
    def read(name: str) -> list[pd.DataFrame]:
        return [pd.read_csv(folder / name) for folder in folders if (folder / name).is_file()]

    trained = [table[table["model"] == "trained"] for table in read(ATTRIBUTIONS)]
    r = pd.Series([correlation(table) for table in read(FAITHFULNESS)], dtype=float)
    bonds = read(BONDS)
    alike = [table for table in bonds if set(table["index"]) == set(bonds[0]["index"])]
    clear = [one for table in read(SHARES) for one in _clear(table)]
    return {
        "n_runs": len(folders),
        "n_structures": sum(map(len, trained)),
        "missed": pd.concat([pd.Series(missed_shares(table)) for table in trained]).max(),
        "faithfulness": r.mean(),
        "faithfulness_sd": r.std(),
        "stability": stability(alike) if len(alike) > 1 else np.nan,
        "n_clear": sum(clear),
        "n_leading": len(clear),
    }


def _clear(shares: pd.DataFrame) -> list[bool]:
    """For each crystal with shares and a control."""
    found = []
    for _, own in shares.dropna(subset="share").groupby("structure"):
        trained, control = _with_control(own)
        if len(trained) and (leading := str(trained["share"].idxmax())) in control.index:
            found.append(apart(trained.T[leading], control.T[leading]))
    return found


def _or_unknown(value: float, form: str) -> str:
    return "not known" if np.isnan(value) else format(value, form)
