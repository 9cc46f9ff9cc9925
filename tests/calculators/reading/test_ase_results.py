"""Band edges from what ASE calculators offer: levels, occupations and k-points."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointDFTCalculator, SinglePointKPoint

from schnetpack_phonon.calculators.reading.ase_results import ase_results, level_edges, prefixes

KPOINTS = np.array([[0, 0, 0], [0.5, 0, 0]])
LEVELS = np.array([[-3.0, 1.0, 4.0], [-2.0, 1.5, 3.0]])


def calculator(kpoints=KPOINTS, n_spins=1):
    atoms = Atoms("H2", cell=np.eye(3), pbc=True)
    filled = (2 / n_spins) * np.array([1.0, 1.0, 0.0])
    points = [
        SinglePointKPoint(0.5, spin, k, levels, filled)
        for spin in range(n_spins)
        for k, levels in enumerate(LEVELS)
    ]
    return SinglePointDFTCalculator(atoms, ibzkpts=kpoints, kpts=points)


@pytest.mark.parametrize("n_spins", [1, 2])
def test_edges_of_levels(n_spins):
    assert level_edges(calculator(n_spins=n_spins)) == {
        "vbm": 1.5,
        "cbm": 3.0,
        "band_gap_gamma": 3.0,
        "partial_occupation": 0.0,
    }


def test_mesh_without_gamma():
    """Lacks the gap there and nothing else."""
    found = level_edges(calculator(KPOINTS + 0.25))
    assert found == {"vbm": 1.5, "cbm": 3.0, "partial_occupation": 0.0}


def test_calculator_without_levels():
    assert level_edges(EMT()) == {}
    assert ase_results(Atoms("H")) == {}


def test_prefixes():
    atoms = Atoms("H", info={"REF_energy": 1.0, "energy": 2.0, "free_energy": 2.0})
    atoms.arrays["dft_forces"] = np.zeros((1, 3))
    assert prefixes(atoms) == ["REF_", "dft_"]
