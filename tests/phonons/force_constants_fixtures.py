"""What the tests of force constants share: springs, an alloy, and phonopy as its users have it."""

import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress
from phonopy import Phonopy

from schnetpack_phonon.common import properties
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.phonons.modes import WholeModes
from schnetpack_phonon.phonons.phonopy_files import PhonopyFiles
from schnetpack_phonon.structures.alloys import MixedAntiperovskites
from schnetpack_phonon.structures.atom_properties import to_phonopy
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix

STABLE = Instabilities("error", floor=0.1)
FLOOR = Instabilities("floor", floor=0.5)
SPRINGS = {2.8: 4.0, 2.8 * 2**0.5: 1.0}
ALLOYS = {"Cu3PdAu": 4.0, "Cu3PtAu": 4.2}  # lattice constants
THZ = (units._e * 1e20 / units._amu) ** 0.5 / (2 * np.pi * 1e12)  # of sqrt(eV/Ang^2/amu)


class Springs:
    """Labels of crystals whose energy is quadratic; keeps what it was asked for.

    Args:
        known: ideal supercells and their force constants; atoms tell which one is meant.
        failing: numbers of the jobs that fail.
    """

    def __init__(self, *known, failing=()):
        self.known = {str(ideal.symbols): (ideal, k) for ideal, k in known}
        self.failing = failing
        self.asked = []

    def __call__(self, what, jobs):
        self.asked.append((what, [text for text, _ in jobs]))
        return [None if n in self.failing else self.label(a) for n, (_, a) in enumerate(jobs)]

    def label(self, atoms):
        ideal, force_constants = self.known[str(atoms.symbols)]
        forces = -np.einsum("ijab,jb->ia", force_constants, atoms.positions - ideal.positions)
        return {properties.forces: forces, properties.energy: np.zeros(1)}


class MagneticSprings(Calculator):
    """Springs of neighbours: 1 eV/Ang^2 and 2.5 Ang, antiparallel ones 3 eV/Ang^2 and ``rest``."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, rest=2.5):
        super().__init__()
        self.rest = rest

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        moments = self.atoms.get_initial_magnetic_moments()
        i, j, d, vectors = neighbor_list("ijdD", self.atoms, 3.1)
        opposite = moments[i] * moments[j] < 0
        k, rest = np.where(opposite, 3.0, 1.0), np.where(opposite, self.rest, 2.5)
        pull = (k * (d - rest) / d)[:, None] * vectors
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, i, pull)
        stress = 0.5 * np.einsum("px,py->xy", pull, vectors) / self.atoms.get_volume()
        self.results = {
            "energy": float((0.25 * k * (d - rest) ** 2).sum()),
            "forces": forces,
            "stress": full_3x3_to_voigt_6_stress(stress),
        }


@pytest.fixture
def layers() -> Crystal:
    """An antiferromagnet that is cubic without its moments: (001) layers up and down."""
    atoms = bulk("Cr", "fcc", a=2.5 * 2**0.5, cubic=True)
    atoms.set_initial_magnetic_moments(np.where(atoms.positions[:, 2] < 0.1, 1.0, -1.0))
    return Crystal("Cr", atoms, supercell_matrix([2, 2, 2]))


def magnetic_force_constants(atoms) -> np.ndarray:
    """Of :class:`MagneticSprings` with neighbours 2.5 Ang apart."""
    k = np.zeros((len(atoms), len(atoms), 3, 3))
    moments = atoms.get_initial_magnetic_moments()
    i, j, d, vectors = neighbor_list("ijdD", atoms, 3.1)
    stiffness = np.where(moments[i] * moments[j] < 0, 3.0, 1.0) / d**2
    block = stiffness[:, None, None] * vectors[:, :, None] * vectors[:, None, :]
    np.add.at(k, (i, j), -block)
    np.add.at(k, (i, i), block)
    return k


def no_labels(what, jobs):
    raise AssertionError(f"{what}: {len(jobs)} labels of a source that needs none")


@pytest.fixture(scope="module")
def cubic() -> Crystal:
    """Rock salt by its cubic cell, which phonopy's default reduces to two atoms."""
    return Crystal("NaCl", bulk("NaCl", "rocksalt", a=5.6, cubic=True), supercell_matrix([1, 1, 1]))


@pytest.fixture(scope="module")
def cubic_springs(cubic, central_springs) -> np.ndarray:
    return central_springs(cubic.supercell, SPRINGS)


@pytest.fixture(scope="module")
def pair() -> Crystal:
    cell = bulk("LiH", "cesiumchloride", a=3.0)
    return Crystal("LiH", cell, supercell_matrix([1, 1, 1]))


def rebased(model, seed=0):
    """The same model with other eigenvectors within each set of equal frequencies."""
    rng = np.random.default_rng(seed)
    vectors = model.eigenvectors.copy()
    levels = np.flatnonzero(np.diff(model.frequencies, prepend=-1e9, append=1e9) > 1e-4)
    for start, stop in pairwise(levels):
        rotation = np.linalg.qr(rng.normal(size=(stop - start, stop - start))).Q
        vectors[:, start:stop] = vectors[:, start:stop] @ rotation
    assert np.diff(levels).max() > 3
    assert np.abs(vectors - model.eigenvectors).max() > 0.1
    return replace(model, modes=WholeModes(vectors))


def between_two(k: float) -> np.ndarray:
    return np.array([[k, -k], [-k, k]])[..., None, None] * np.eye(3)


@pytest.fixture
def alloy(central_springs):
    """A mixed crystal of 40 atoms, two sites in eight of the second kind, and its end members."""
    (mixed,) = MixedAntiperovskites(
        ["Cu3(Pd,Pt)Au"], 1, 0, 0.25, supercell=[2, 2, 2], lattice_constants=ALLOYS
    ).crystals
    known = {}
    for stiffness, (member, _) in zip((3.0, 5.0), mixed.end_members, strict=True):
        a = member.unitcell.cell[0, 0]
        lengths = {a / 2: stiffness, a / 2**0.5: 1.0}
        known[member.name] = central_springs(member.supercell, lengths)
    return mixed, known


def save(phonon, path, force_sets=False, force_constants=None):
    if force_constants is not None:
        phonon.force_constants = force_constants
    with_constants = force_constants is not None
    phonon.save(path, settings={"force_sets": force_sets, "force_constants": with_constants})


def phonopy_of(crystal, force_constants=None, calculator=None, length=1.0, force=1.0) -> Phonopy:
    """As phonopy's users have it, with displacements and, where K is given, forces.

    Args:
        crystal: in Ang.
        force_constants: in eV/Ang^2.
        calculator: phonopy's name.
        length: unit of the calculator in Ang.
        force: unit of the calculator in eV/Ang.
    """
    cell = crystal.unitcell.copy()
    cell.set_cell(cell.cell / length, scale_atoms=True)
    matrix = np.array(crystal.supercell_matrix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # says that "auto" found a smaller cell
        phonon = Phonopy(to_phonopy(cell), matrix, primitive_matrix="auto", calculator=calculator)
    phonon.generate_displacements(distance=0.01 / length)
    if force_constants is not None:
        cells = phonon.supercells_with_displacements
        u = np.array([cell.positions for cell in cells]) - phonon.supercell.positions
        phonon.forces = -np.einsum("ijab,njb->nia", force_constants * length / force, u)
    return phonon


def read(path, crystal, **options):
    source = PhonopyFiles(str(path), options.pop("instabilities", STABLE), **options)
    return source.models([crystal], [300.0], no_labels)[crystal.name, 300.0]
