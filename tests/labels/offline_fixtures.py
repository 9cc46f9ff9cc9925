"""A crystal whose labels CP2K gives elsewhere: its generation, and outputs as CP2K writes them."""

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.units import Bohr, Hartree

from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.data.generation import Generation
from schnetpack_phonon.data.preparation import Recipe
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.labels.manifest import Calculation, read_manifest
from schnetpack_phonon.labels.offline import STRUCTURE, export
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.calculators.cp2k_fixtures import STORED

IDEAL = bulk("AlP", "zincblende", a=5.46)
SPRING = 5.0  # eV/Ang^2, between the two atoms of a cell
CODE = {
    "_target_": "schnetpack_phonon.calculators.cp2k.CP2K",
    "kpoints": [1, 1, 1],
    "mixing": [0.4, 0.2],
    "command": "no-such-cp2k",
    "version": "2023.1",
}


def cp2k(**options) -> CP2K:
    return CP2K(**{k: v for k, v in (CODE | options).items() if k != "_target_"})


def make_generation(
    folder: Path, ensemble=None, calculator=None, relax=False, elastic=None
) -> Generation:
    """Of two random snapshots of a crystal with two atoms, if it is not told otherwise."""
    crystal = Crystal("AlP", IDEAL, supercell_matrix([1, 1, 1]))
    recipe = Recipe(
        SimpleNamespace(crystals=[crystal], relax=relax, calculator=None),
        FiniteDisplacements(Instabilities()),
        ensemble or RandomEnsemble([0.1], n_snapshots=2, seed=1),
        calculator or cp2k(),
        elastic,
    )
    return Generation(
        recipe,
        folder / "data" / "test.db",
        partial(ThreadPoolExecutor, 1),
        folder / "data" / "labels.jsonl",
        0.5,
    )


def export_from(generation: Generation, root: Path, code=None) -> str:
    """As ``spkphonon export`` does."""
    plan, calculator = generation.plan, generation.recipe.calculator
    return export(plan, calculator, generation.label_store, root, code or CODE)


def calculations(root: Path) -> dict[str, Calculation]:
    """By folder, in the order of the export."""
    return {calculation.folder: calculation for calculation in read_manifest(root).calculations}


def answer(folder: Path, atoms: Atoms) -> None:
    """Leaves what CP2K would, if the two atoms were held together by a spring."""
    stretch = np.diff(atoms.positions - IDEAL.positions, axis=0)[0]
    force = SPRING * stretch / (Hartree / Bohr)
    rows = zip(atoms.symbols, (force, -force), strict=True)
    text = (STORED / "gamma" / "label.out").read_text()
    for pattern, lines in (
        (r"(?<=&CELL\n).*?(?= +ALPHA)", _rows(zip("ABC", atoms.cell.array, strict=True))),
        (r"(?<=&COORD\n).*?(?= +UNIT)", _rows(zip(atoms.symbols, atoms.positions, strict=True))),
        (r"(?<= Z\n).*?(?= SUM OF)", _rows((f"1 1 {symbol}", row) for symbol, row in rows)),
        (
            r"(?<=energy \[a\.u\.\]:)[^\n]+",
            f" {-8.0 + SPRING * (stretch @ stretch) / 2 / Hartree:.15f}",
        ),
    ):
        text, count = re.subn(pattern, lines, text, flags=re.DOTALL)
        assert count == 1, pattern
    (folder / "label.out").write_text(text)


def _rows(rows) -> str:
    return "".join(f" {name} {' '.join(f'{x:.10f}' for x in row)}\n" for name, row in rows)


def run(root: Path) -> list[str]:
    """What a cluster does; returns the folders that it went through."""
    todo = (root / "todo.txt").read_text().split()
    for folder in todo:
        assert (root / folder / STRUCTURE).is_file()
        answer(root / folder, calculations(root)[folder].atoms)
    return todo


def spoil(root: Path, folder: str, pattern: str, replacement: str) -> None:
    """Changes what was left in one folder."""
    output = root / folder / "label.out"
    text, count = re.subn(pattern, replacement, output.read_text(), flags=re.DOTALL)
    assert count, pattern
    output.write_text(text)


class Here(CP2K):
    """Calculates here and now what :func:`answer` leaves."""

    def write_input(self, folder, atoms, mixing):
        answer(folder, atoms)

    def ask_version(self):
        return "2023.1"

    def _execute(self, folder):
        pass
