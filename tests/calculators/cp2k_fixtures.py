"""What CP2K wrote for two atoms, with 4 empty bands, at Gamma and with a mesh."""

from ase import Atoms

from tests.calculators.code_fixtures import CODES, DATA

STORED = DATA / "cp2k"
needs_cp2k = CODES["CP2K"].needed


def aluminium_phosphide() -> Atoms:
    """Two atoms without any symmetry."""
    return CODES["CP2K"].atoms.copy()
