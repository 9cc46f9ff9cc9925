"""Frozen results of an attribution, and the tables that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from schnetpack_phonon.paths import StraightPath, shells


@dataclass(frozen=True)
class BondAttribution:
    """Attribution of one structure's property to its bonds.

    A bond is a pair (i, j, image) of atoms, both of its directed edges together. Single values of
    the total are not identifiable where an atom sits between equal neighbours (terms linear in
    the distance cancel); the even part is, and the totals by type are.

    Attributes:
        output: the model's output that is attributed, perhaps with the indices of a component.
        unit: of it.
        method: Captum's name of the method.
        path: ideal and displaced crystal, and the edges.
        attribution: of each bond, shape=(n_bonds,).
        even: half of the sum with the attribution of the opposite displacement,
            shape=(n_bonds,); None where it was not asked for.
        start: prediction where the path begins: the ideal crystal, or no bonds at all.
        value: prediction for the displaced crystal.
        n_steps: nodes of the quadrature, 0 for methods without.
        additive: whether the bonds should add up to the change.
        index: of the structure in its database.
        structure: name of the crystal.
    """

    output: str
    unit: str
    method: str
    path: StraightPath
    attribution: np.ndarray
    even: np.ndarray | None
    start: float
    value: float
    n_steps: int
    additive: bool = True
    index: int = 0
    structure: str = ""

    @property
    def change(self) -> float:
        """What is attributed: f(displaced) - f(ideal), or - f(no bonds)."""
        return self.value - self.start

    @property
    def residual(self) -> float:
        """What the bonds miss of the change: quadrature error and terms that are not edges."""
        return float(self.change - self.attribution.sum())

    def by_type(self) -> pd.Series:
        """Sum over the bonds of each type, in the unit of the property."""
        return pd.Series(self.attribution).groupby(self.path.bond_types).sum()

    def bonds(self) -> pd.DataFrame:
        """One row a bond: the even part where there is one, never the raw value beside it."""
        k = self.path.first
        d0, d = (np.linalg.norm(self.path.vectors(u)[k], axis=1) for u in (0.0, 1.0))
        types = self.path.bond_types
        values = self.attribution if self.even is None else self.even
        return pd.DataFrame(
            {
                "index": self.index,
                "structure": self.structure,
                "i": self.path.idx_i[k],
                "j": self.path.idx_j[k],
                **{f"image_{x}": self.path.image[k, n] for n, x in enumerate("xyz")},
                "bond_type": types,
                "shell": shells(self.path.ideal, types, d0),
                "ideal_distance": d0,
                "distance": d,
                "attribution": values,
                "part": "total" if self.even is None else "even",
                "unit": self.unit,
            }
        )

    def summary(self) -> dict[str, object]:
        """One row of the table of structures."""
        return {
            "index": self.index,
            "structure": self.structure,
            "method": self.method,
            "ideal_value": self.start,
            "value": self.value,
            "change": self.change,
            "residual": self.residual if self.additive else np.nan,
            "n_steps": self.n_steps,
            "unit": self.unit,
        }

    def totals(self) -> pd.DataFrame:
        """Total of each type and shell: ``bond_type``, ``shell``, ``n_bonds``, ``sum``."""
        table = self.bonds().assign(attribution=self.attribution)
        groups = table.groupby(["bond_type", "shell"])
        return groups.agg(
            n_bonds=("attribution", "size"),
            ideal_distance=("ideal_distance", "mean"),
            sum=("attribution", "sum"),
        ).reset_index()


def shares(
    sums: pd.DataFrame,
    change: Sequence[float] | np.ndarray,
    residual: np.ndarray | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of each group of bonds in the variance of the change, Cov(A_t, df) / Var(df).

    Shares add up to 1 (to the completeness of the attributions). The interval is the central
    95 % of a bootstrap over structures.

    Args:
        sums: one row a structure, one column a group; NaN counts as zero.
        change: of the prediction, shape=(n_structures,).
        residual: what the bonds miss of it, shape=(n_structures,).
        n_bootstrap: resamplings.
        seed: of the resampling.

    Returns:
        One row a group: ``sum`` (the mean over structures), ``share``, ``low``, ``high``. Shares
        are NaN if there are fewer than three structures or the property does not change, where
        they mean nothing.
    """
    table, df = sums.fillna(0.0), np.asarray(change, dtype=float)
    result = pd.DataFrame({"sum": table.mean()}, index=table.columns)
    if why_no_shares(df, residual):
        return result.assign(share=np.nan, low=np.nan, high=np.nan)
    a = table.to_numpy()

    def of(weights: np.ndarray) -> np.ndarray:
        centred = df - (weights @ df)[:, None]
        variance = (weights * centred**2).sum(axis=1)
        return np.divide(
            (weights * centred) @ a,
            variance[:, None],
            out=np.full((len(weights), a.shape[1]), np.nan),
            where=variance[:, None] > 0,
        )

    n = len(df)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    samples = of(rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap) / n)
    low, high = np.nanquantile(samples, [0.025, 0.975], axis=0)
    return result.assign(share=of(np.full((1, n), 1 / n))[0], low=low, high=high)


def why_no_shares(change: np.ndarray, residual: np.ndarray | None = None) -> str:
    """Why a change has no shares of variance, empty if it has.

    Args:
        change: of each structure's property.
        residual: what the bonds miss of it; NaN for methods whose bonds do not add up.
    """
    if len(change) < 3:
        return f"structures: {len(change)}, shares of a variance need at least 3"
    missed = 0.0 if residual is None else np.sqrt(np.nan_to_num(np.square(residual)).mean())
    if np.std(change) <= max(1e-6 * np.abs(change).max(), 3 * missed):
        return (
            f"the property changes by {np.std(change):.1g} only, which the bonds miss by "
            f"{missed:.1g}: shares are undefined"
        )
    return ""


def group_shares(
    totals: pd.DataFrame, structures: pd.DataFrame, keys: Sequence[str], n_bootstrap: int = 1000
) -> pd.DataFrame:
    """Sums and variance shares of groups of bonds, of each crystal and model.

    Args:
        totals: ``model``, ``structure``, ``index``, ``bond_type``, ``shell``, ``ideal_distance``,
            ``n_bonds``, ``sum``.
        structures: ``model``, ``index``, ``change``, ``residual``, ``unit``.
        keys: ``bond_type``, or that and ``shell``.
        n_bootstrap: resamplings.

    Returns:
        ``structure``, ``model``, the keys, ``ideal_distance`` (mean) and ``n_bonds`` (a
        structure), ``sum`` (mean), ``share``, ``low``, ``high``, ``unit``.
    """
    keys, tables = list(keys), []
    for (name, model), own in totals.groupby(["structure", "model"]):
        sums = own.pivot_table(index="index", columns=keys, values="sum", aggfunc="sum")
        mine = structures[structures["model"] == model].set_index("index").loc[sums.index]
        change, residual = mine[["change", "residual"]].to_numpy(dtype=float).T
        table = shares(sums, change, residual, n_bootstrap)
        groups = own.groupby(keys)
        table.insert(0, "n_bonds", groups["n_bonds"].sum() / len(sums))
        table.insert(0, "ideal_distance", groups["ideal_distance"].mean())
        table = table.reset_index().assign(unit=mine["unit"].iloc[0])
        table.insert(0, "model", str(model))
        table.insert(0, "structure", str(name))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
