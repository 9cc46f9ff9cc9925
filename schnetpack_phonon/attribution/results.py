"""Results of an attribution, their tables and their files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from ase.io import write

from schnetpack_phonon.attribution.paths import StraightPath, shells
from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.common.random import N_BOOTSTRAP, interval

FEW = 10  #: structures, below which shares have no interval and no conclusion
# Files of an attribution. Tables are written as .parquet, too, if pyarrow is installed.
SHARES = "bond_shares.csv"  #: by crystal, model and bond type
SHELLS = "bond_shells.csv"  #: the same by shell
ATTRIBUTIONS = "bond_attribution.csv"  #: by structure and model, a column for each bond type
BONDS = "bonds.csv"  #: by structure and bond
FAITHFULNESS = "bond_faithfulness.csv"  #: by structure and random subset of bonds
VERDICT = "bond_verdict.txt"  #: conclusions from the checks
EXTXYZ = "bonds.extxyz"  #: displaced crystals, half of each bond on its atoms
DUMP_LOCAL = "bonds.dump"  #: LAMMPS dump local, for OVITO
FIGURES = "figures"


@dataclass(frozen=True)
class BondAttribution:
    """Attribution of one structure's property to its bonds.

    A bond is a pair (i, j, image) of atoms, with both of its directed edges. The attribution of a
    single bond is not identifiable where an atom is between equal neighbours (terms linear in the
    distance cancel); its even part is, and so are sums over bond types.

    Attributes:
        output: output of the model, with the indices of a component where it is one.
        unit: of the output.
        method: its name in Captum.
        path: ideal and displaced crystal, and the edges.
        attribution: of each bond, shape=(n_bonds,).
        even: mean of the attributions for this and for the opposite displacement,
            shape=(n_bonds,); None where it was not computed.
        start: prediction at the start of the path: the ideal crystal, or no bonds at all.
        value: prediction for the displaced crystal.
        resolution: smallest change that is no rounding error of the model.
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
    resolution: float
    n_steps: int
    additive: bool = True
    index: int = 0
    structure: str = ""

    @property
    def change(self) -> float:
        """f(displaced) - f(ideal), or f(displaced) - f(no bonds)."""
        return self.value - self.start

    @property
    def residual(self) -> float:
        """Change minus the sum over bonds: quadrature error and terms that are not edges."""
        return float(self.change - self.attribution.sum())

    def by_type(self) -> pd.Series:
        """Sum over the bonds of each type, in the unit of the property."""
        return pd.Series(self.attribution).groupby(self.path.bond_types).sum()

    def bonds(self) -> pd.DataFrame:
        """One row for each bond, with its even part where there is one, else the total."""
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
        """A row of the table of structures."""
        return {
            "index": self.index,
            "structure": self.structure,
            "method": self.method,
            "ideal_value": self.start,
            "value": self.value,
            "change": self.change,
            "residual": self.residual if self.additive else np.nan,
            "resolution": self.resolution,
            "n_steps": self.n_steps,
            "unit": self.unit,
        }

    def totals(self) -> pd.DataFrame:
        """By type and shell: ``bond_type``, ``shell``, ``n_bonds``, ``ideal_distance``, ``sum``."""
        table = self.bonds().assign(attribution=self.attribution)
        return table.groupby(["bond_type", "shell"], as_index=False).agg(
            n_bonds=("attribution", "size"),
            ideal_distance=("ideal_distance", "mean"),
            sum=("attribution", "sum"),
        )


def shares(
    sums: pd.DataFrame,
    change: Sequence[float] | np.ndarray,
    residual: np.ndarray | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of each group of bonds in the variance of the change, Cov(A_t, df) / Var(df).

    Shares add up to 1 (as far as attributions are complete). The interval is the central 95 % of a
    bootstrap over structures; NaN for fewer than ten.

    Args:
        sums: one row for each structure, one column for each group; NaN counts as zero.
        change: of the prediction, shape=(n_structures,).
        residual: change minus the sum over bonds, shape=(n_structures,).
        n_bootstrap: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        One row for each group: ``sum`` (the mean over structures), ``share``, ``low``, ``high``.
        Shares are NaN where they are undefined, see :func:`why_no_shares`.
    """
    table, df = sums.fillna(0.0), np.asarray(change, dtype=float)
    result = pd.DataFrame({"sum": table.mean()}, index=table.columns)
    if why_no_shares(df, residual):
        return result.assign(share=np.nan, low=np.nan, high=np.nan)

    def of(weights: np.ndarray) -> np.ndarray:
        centred = df - (weights @ df)[:, None]
        variance = (weights * centred**2).sum(axis=1)[:, None]
        covariance = (weights * centred) @ table.to_numpy()
        empty = np.full(covariance.shape, np.nan)
        return np.divide(covariance, variance, out=empty, where=variance > 0)

    n, equal = len(df), np.full(len(df), 1 / len(df))
    samples = of(np.random.default_rng(seed).multinomial(n, equal, size=n_bootstrap) / n)
    low, high = interval(samples[np.isfinite(samples[:, 0])]) if n >= FEW else (np.nan, np.nan)
    return result.assign(share=of(equal[None])[0], low=low, high=high)


def why_no_shares(change: np.ndarray, residual: np.ndarray | None = None) -> str:
    """The reason why shares of variance are undefined, empty if they are defined.

    Args:
        change: of the property of each structure.
        residual: change minus the sum over bonds; NaN for methods that are not additive.
    """
    if len(change) < 3:
        return f"structures: {len(change)}, shares of variance need at least 3"
    rms = 0.0 if residual is None else np.sqrt(np.nan_to_num(np.square(residual)).mean())
    if np.std(change) <= max(1e-6 * np.abs(change).max(), 3 * rms):
        return (
            f"the change of the property varies by {np.std(change):.1g} only, with a residual of "
            f"{rms:.1g}: shares are undefined"
        )
    return ""


def group_shares(
    totals: pd.DataFrame,
    structures: pd.DataFrame,
    keys: Sequence[str],
    n_bootstrap: int = N_BOOTSTRAP,
) -> pd.DataFrame:
    """Sums and variance shares of groups of bonds, of each crystal and model.

    Args:
        totals: ``model``, ``structure``, ``index``, ``bond_type``, ``shell``, ``ideal_distance``,
            ``n_bonds``, ``sum``.
        structures: ``model``, ``index``, ``change``, ``residual``, ``unit``.
        keys: ``bond_type``, or that and ``shell``.
        n_bootstrap: bootstrap samples.

    Returns:
        ``structure``, ``model``, the keys, ``ideal_distance`` (mean) and ``n_bonds`` (in a
        structure), ``sum`` (mean), ``share``, ``low``, ``high``, ``unit``.
    """
    keys, tables = list(keys), {}
    for (name, model), own in totals.groupby(["structure", "model"]):
        sums = own.pivot_table(index="index", columns=keys, values="sum", aggfunc="sum")
        mine = structures[structures["model"] == model].set_index("index").loc[sums.index]
        change, residual = mine[["change", "residual"]].to_numpy(float).T
        table = shares(sums, change, residual, n_bootstrap)
        groups = own.groupby(keys)
        table.insert(0, "n_bonds", groups["n_bonds"].sum() / len(sums))
        table.insert(0, "ideal_distance", groups["ideal_distance"].mean())
        tables[str(name), str(model)] = table.assign(unit=mine["unit"].iloc[0])
    return pd.concat(tables, names=["structure", "model"]).reset_index()


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes CSV, and Parquet too if pyarrow is installed."""
    with replacing(path) as part:
        table.to_csv(part, index=False)
    if find_spec("pyarrow") is not None:
        with replacing(path.with_suffix(".parquet")) as part:
            table.to_parquet(part, index=False)


def atom_sums(n_atoms: int, bonds: pd.DataFrame) -> np.ndarray:
    """Half of the attribution of each bond on each of its atoms, shape=(n_atoms,)."""
    half = bonds["attribution"].to_numpy() / 2
    return np.bincount(bonds["i"], half, n_atoms) + np.bincount(bonds["j"], half, n_atoms)


def write_bond_extxyz(
    path: Path, structures: Iterable[tuple[int, Atoms]], bonds: pd.DataFrame
) -> None:
    """Displaced crystals with the array ``bond_attribution``, see :func:`atom_sums`.

    Args:
        path: the file.
        structures: index and displaced crystal.
        bonds: table of the bonds of all structures.
    """
    frames = []
    for index, atoms in structures:
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        frame.set_array("id", np.arange(1, len(atoms) + 1))
        frame.set_array("bond_attribution", atom_sums(len(atoms), bonds[bonds["index"] == index]))
        frame.info["index"] = index
        frames.append(frame)
    with replacing(path) as part:
        write(part, frames, format="extxyz")


_DUMPED = ["index", "batom1", "batom2", "image_x", "image_y", "image_z", "distance", "change"]
_DUMPED += ["shell", "attribution"]


def write_dump_local(
    path: Path, structures: Iterable[tuple[int, Atoms]], bonds: pd.DataFrame
) -> None:
    """LAMMPS dump local, one frame for each structure, in the order of the extended XYZ file.

    OVITO: open the extended XYZ file, add the modifier "Load trajectory" with this file, map
    ``batom1`` and ``batom2`` to the components of "Particle Identifiers" and the images to those of
    "Periodic Image", and colour the bonds by ``attribution``.

    Args:
        path: the file.
        structures: index and displaced crystal.
        bonds: table of the bonds of all structures.
    """
    with replacing(path) as part, open(part, "w") as file:
        for frame, (index, atoms) in enumerate(structures):
            own = bonds[bonds["index"] == index]
            cell = atoms.cell.standard_form()[0].array
            xy, xz, yz = cell[1, 0], cell[2, 0], cell[2, 1]
            shifts = 0, xy, xz, xy + xz
            bounds = [
                (min(shifts), cell[0, 0] + max(shifts), xy),
                (min(0, yz), cell[1, 1] + max(0, yz), xz),
                (0.0, cell[2, 2], yz),
            ]
            file.write(f"ITEM: TIMESTEP\n{frame}\nITEM: NUMBER OF ENTRIES\n{len(own)}\n")
            file.write("ITEM: BOX BOUNDS xy xz yz pp pp pp\n")
            file.writelines(f"{low:.10g} {high:.10g} {tilt:.10g}\n" for low, high, tilt in bounds)
            numbers = {"index": np.arange(1, len(own) + 1)}
            ends = {"batom1": own["i"] + 1, "batom2": own["j"] + 1}
            change = own["distance"] - own["ideal_distance"]
            table = own.assign(**numbers, **ends, change=change)[_DUMPED]
            file.write(f"ITEM: ENTRIES {' '.join(map(str, table))}\n")
            table.to_csv(file, sep=" ", header=False, index=False, float_format="%.8g")
