"""Which calculator for which crystal: lattice constants, gaps and imaginary modes.

Each crystal is relaxed with each calculator within its symmetry, its force constants follow from
finite displacements of 0.03 Ang, and its gap is that of the relaxed crystal at rest: what
``spktrain`` does before it draws snapshots. All is calculated in the supercell below, xTB at the
Gamma point alone. These supercells of cubic cells have the states at Gamma and X of the primitive
cell of fcc lattices, and those at Gamma, X, M and R of simple cubic ones.

Each line is one crystal with one calculator; the table compares them with measured values of
textbooks (lattice constants within 0.01 Ang, gaps at low temperature). EMT is run for the metals
that it knows; SevenNet-0 if ``sevenn`` is installed (its weights are part of the wheel).

    OMP_NUM_THREADS=1 python -m tests.benchmarks.calculators
    OMP_NUM_THREADS=1 python -m tests.benchmarks.calculators --crystals MgO --calculators GFN2-xTB
"""

import argparse
import json
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.spacegroup import crystal as by_space_group

from schnetpack_phonon.calculators.base import AseCalculator, LabellingCalculator
from schnetpack_phonon.calculators.tight_binding import TightBinding
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.page import markdown_table
from schnetpack_phonon.labels.relaxation import relax
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal, antiperovskite, supercell_matrix

_HALIDE = {"spacegroup": 221, "basis": [(0, 0, 0), (0.5, 0.5, 0)]}
CELLS: dict[str, tuple[Atoms, int]] = {  # cubic cell, and how often it is repeated along each axis
    "MgO": (bulk("MgO", "rocksalt", a=4.21, cubic=True), 2),
    "CaO": (bulk("CaO", "rocksalt", a=4.81, cubic=True), 2),
    "NaCl": (bulk("NaCl", "rocksalt", a=5.60, cubic=True), 2),
    "Si": (bulk("Si", a=5.43, cubic=True), 2),
    "GaAs": (bulk("GaAs", "zincblende", a=5.65, cubic=True), 2),
    "SrTiO3": (
        by_space_group(
            ("Sr", "Ti", "O"),
            [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)],
            spacegroup=221,
            cellpar=[3.905] * 3 + [90] * 3,
        ),
        2,
    ),
    "Cu3Au": (by_space_group(("Au", "Cu"), cellpar=[3.75] * 3 + [90] * 3, **_HALIDE), 3),
    "Ag3SBr": (antiperovskite("Ag3SBr"), 2),
}
#: Lattice constant in Ang and gap in eV, measured; no gap for a metal.
MEASURED = {
    "MgO": (4.211, 7.8),
    "CaO": (4.811, 7.1),
    "NaCl": (5.595, 8.6),
    "Si": (5.430, 1.17),
    "GaAs": (5.650, 1.52),
    "SrTiO3": (3.899, 3.3),
    "Cu3Au": (3.743, 0.0),
    "Ag3SBr": (np.nan, np.nan),
}


def calculators() -> dict[str, LabellingCalculator]:
    """By name; the foundation potential only where it is installed."""
    methods = ("GFN1-noX", "GFN2-xTB", "IPEA1-xTB")
    found: dict[str, LabellingCalculator] = {name: TightBinding(name) for name in methods}
    found["EMT"] = AseCalculator(EMT)
    try:
        from sevenn.calculator import SevenNetCalculator
    except ImportError:
        return found
    return found | {
        "SevenNet-0": AseCalculator(partial(SevenNetCalculator, "7net-0", device="cpu"))
    }


def measured(calculator: LabellingCalculator, crystal: Crystal) -> dict[str, float]:
    """Of a crystal with one calculator; raises what the calculator raises."""
    relaxed = replace(crystal, unitcell=relax(calculator, crystal))
    ideal = calculator.label(relaxed.supercell)
    phonons = FiniteDisplacements(Instabilities("abs"))
    models = phonons.models(
        [relaxed], [300.0], lambda _, jobs: [calculator.label(atoms) for _, atoms in jobs]
    )
    (model,) = models.values()
    row = {
        "a": float(relaxed.unitcell.cell.lengths()[0]),
        "n_atoms": len(relaxed.supercell),
        "n_imaginary": int(model.n_imaginary),
        "n_modes": int(model.frequencies.size),
        "lowest": float(model.frequencies.min()),
        "highest": float(model.frequencies.max()),
    }
    keys = (properties.band_gap, properties.partial_occupation)
    return row | {key: ideal[key].item() for key in keys if key in ideal}


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each crystal and calculator, in words."""
    lines = []
    for row in rows.to_dict("records"):
        a, gap = MEASURED[row["crystal"]]
        line = {"crystal": row["crystal"], "calculator": row["calculator"]}
        if isinstance(row.get("failed"), str):
            lines.append(line | {"lattice constant (Å)": row["failed"]})
            continue
        change = "" if np.isnan(a) else f" ({100 * (row['a'] / a - 1):+.1f} %)"
        line["lattice constant (Å)"] = f"{row['a']:.3f}{change}"
        known = properties.band_gap in row and not np.isnan(row[properties.band_gap])
        line["gap (eV)"] = f"{row[properties.band_gap]:.2f}" if known else "–"
        line["measured a, gap"] = "" if np.isnan(a) else f"{a:.3f}, {gap:.2f}"
        line["imaginary modes"] = f"{row['n_imaginary']:.0f} of {row['n_modes']:.0f}"
        line["lowest, highest (THz)"] = f"{row['lowest']:.1f}, {row['highest']:.1f}"
        line["partly filled"] = f"{row[properties.partial_occupation]:.2f}" if known else "–"
        lines.append(line | {"CPU s": f"{row['seconds']:.0f}"})
    return pd.DataFrame(lines).fillna("")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = calculators()
    parser.add_argument("--crystals", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--calculators", nargs="+", default=list(every), choices=list(every))
    parser.add_argument("--out", type=Path, help="file of lines, to which new ones are added")
    options = parser.parse_args(arguments)
    rows: list[dict] = []
    if options.out and options.out.exists():
        rows = [json.loads(line) for line in options.out.read_text().splitlines()]
    done = {(row["crystal"], row["calculator"]) for row in rows}
    for name in options.calculators:
        for formula in options.crystals:
            if (formula, name) in done or (name == "EMT" and formula != "Cu3Au"):
                continue
            cell, n = CELLS[formula]
            cell.info = {}
            crystal = Crystal(formula, cell, supercell_matrix([n] * 3))
            start = time.process_time()
            try:
                found = measured(every[name], crystal)
            except (RuntimeError, ValueError) as error:
                found = {"failed": f"{type(error).__name__}: {error}"}  # is a result
            seconds = time.process_time() - start
            rows.append({"crystal": formula, "calculator": name, "seconds": seconds, **found})
            line = json.dumps(rows[-1])
            print(line, flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(line + "\n")
    found = table(pd.DataFrame(rows).sort_values(["crystal", "calculator"], kind="stable"))
    print("\n".join(markdown_table(list(found), found.to_numpy().tolist())))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
