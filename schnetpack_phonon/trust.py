"""Can one believe an attribution: completeness, faithfulness, stability and the control."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from schnetpack_phonon.bond_attribution import why_no_shares

#: Share of the bonds that are frozen. All subsets have one size: with others, even random
#: attributions would seem faithful, as larger subsets have larger effects.
FROZEN_SHARE = 0.3


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
