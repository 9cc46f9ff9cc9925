"""Bands and densities of states through the predictor, in closed form; folding; refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.spectrum.band_structure import BandStructure

from schnetpack_phonon.models.band_edges import BandEdges
from schnetpack_phonon.models.hamiltonian.bands import Levels, hamiltonian_of
from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.predict import Predictor
from tests.models.model_fixtures import CUTOFF, potential, thermal

ZERO = 2.5
HYDROGEN = {"H": {"electrons": 1, "s": -6.0}}


def predictor(*elements: str, random: bool = False, **options) -> Predictor:
    """Of a model that starts from free atoms or random numbers, with a zero of potential."""
    head = HamiltonianEdges(elements, **({"cutoff": CUTOFF} | options))
    model = potential(head, representation="NoFeatures", dtype=torch.float64)
    if not random:
        head.hamiltonian.reset_parameters()
    head.offset += ZERO
    return Predictor(model)


def hopping(distance: float) -> float:
    """Half of Harrison's ss sigma, times the cutoff function."""
    x = distance / CUTOFF
    return -0.7 * 7.62 / distance**2 * (1 - 10 * x**3 + 15 * x**4 - 6 * x**5)


def test_simple_cubic_s_band():
    """E = e + 2V (cos kx + cos ky + cos kz) along G-X-M-G-R-X and M-R, half filled at e."""
    atoms = Atoms("H", cell=[3.6] * 3, pbc=True)  # second neighbours are beyond the cutoff
    levels = predictor("H", orbitals=HYDROGEN).levels(atoms, mesh_length=4 * 3.6)
    bands = levels.bands()
    assert isinstance(bands, BandStructure)
    assert bands.path.path == "GXMGRX,MR"
    cosines = np.cos(2 * np.pi * bands.path.kpts).sum(axis=1)
    expected = -6 + ZERO + 2 * hopping(3.6) * cosines
    np.testing.assert_allclose(bands.energies[0, :, 0], expected, atol=1e-6)
    assert bands.reference == pytest.approx(-6 + ZERO, abs=1e-6)


@pytest.mark.parametrize("pbc", [True, [True, False, False]])
def test_two_band_chain(pbc):
    """E = e +- sqrt(a^2 + b^2 + 2ab cos k); the Fermi level is in the middle of the gap."""
    first, second = 2.7, 3.3
    cell = [first + second, 12, 12]
    levels = predictor("H", orbitals=HYDROGEN).levels(
        Atoms("H2", [[0, 0, 0], [first, 0, 0]], cell=cell, pbc=pbc)
    )
    kpoints = np.linspace(0, 1, 7)[:, None] * [1, 0, 0]
    a, b = hopping(first), hopping(second)
    upper = np.sqrt(a * a + b * b + 2 * a * b * np.cos(2 * np.pi * kpoints[:, 0]))
    expected = -6 + ZERO + np.stack([-upper, upper], axis=1)
    np.testing.assert_allclose(levels.at(kpoints), expected, atol=1e-6)
    assert levels.fermi_level == pytest.approx(-6 + ZERO, abs=1e-6)
    if pbc is not True:
        bands = levels.bands()
        assert bands.path.path == "GX"
        assert np.diff(bands.energies[0, -1]) == pytest.approx(2 * abs(a - b), abs=1e-6)


def test_bands_of_a_supercell_are_those_of_its_cell_folded():
    """Levels at a wave vector K of 2x1x2 cells."""
    atoms, repeats = thermal(strain=0.02)[1], np.array([2, 1, 2])
    model = predictor("Ag", "S", "Br", random=True)
    cell, supercell = model.levels(atoms), model.levels(atoms.repeat(repeats))
    point = np.array([0.13, -0.31, 0.27])
    folded = [(point + shift) / repeats for shift in itertools.product((0, 1), (0,), (0, 1))]
    expected = np.sort(cell.at(np.array(folded)).ravel())
    np.testing.assert_allclose(supercell.at(point)[0], expected, atol=1e-8)


def test_edges_are_those_of_the_model():
    atoms = thermal()[1].repeat((2, 1, 1))
    model = predictor("Ag", "S", "Br", random=True)
    (values,) = model([atoms])
    levels = model.levels(atoms)
    (found,) = levels.at(np.zeros(3))
    n_filled = levels.n_electrons // 2
    expected = [values["vbm"], values["cbm"]]
    np.testing.assert_allclose(found[n_filled - 1 : n_filled + 1], expected, atol=1e-9)


def test_density_of_states_counts_all_states_and_the_filled_ones():
    """A Gaussian of one level of a far-away pair of atoms, and the sum over a mesh."""
    levels = predictor("Ag", "S", "Br").levels(thermal()[1], mesh_length=10)
    dos = levels.density_of_states(0.02)
    energies, states = dos.get_energies(), dos.get_weights()
    count = (energies[1] - energies[0]) * states.cumsum()
    assert count[-1] == pytest.approx(70, abs=1e-6)  # 35 orbitals
    middle = np.searchsorted(energies, levels.fermi_level)
    assert count[middle] == pytest.approx(46, abs=0.05)  # electrons
    apart = Atoms("H2", [[0, 0, 0], [9, 9, 9]], cell=[20] * 3, pbc=True)
    dos = predictor("H", orbitals=HYDROGEN).levels(apart).density_of_states(0.2)
    expected = (
        4 / np.sqrt(2 * np.pi * 0.04) * np.exp(-((dos.get_energies() - ZERO + 6) ** 2) / 0.08)
    )
    np.testing.assert_allclose(dos.get_weights(), expected, atol=1e-6)


def test_molecule_has_levels_at_gamma_alone():
    """Bonding and antibonding level of a dimer, one filled."""
    levels = predictor("H", orbitals=HYDROGEN).levels(Atoms("H2", [[0, 0, 0], [0, 0, 2.0]]))
    bands = levels.bands()
    assert bands.path.path == "G"
    expected = -6 + ZERO + hopping(2.0) * np.array([1, -1])
    np.testing.assert_allclose(bands.energies[0, 0], expected, atol=1e-6)
    assert levels.fermi_level == pytest.approx(-6 + ZERO, abs=1e-6)
    with pytest.raises(ValueError, match="path is GX; a structure without periodicity has G alone"):
        levels.bands("GX")


def cubic() -> Levels:
    return predictor("H", orbitals=HYDROGEN).levels(Atoms("H", cell=[3.6] * 3, pbc=True))


def test_unknown_points_of_a_path_are_refused():
    assert cubic().bands("GR").path.path == "GR"
    with pytest.raises(ValueError, match=r"path is GZ; expected a sequence of G, M, R, X, such as"):
        cubic().bands("GZ")


def test_widths_and_meshes_are_positive():
    with pytest.raises(ValueError, match="width is 0 eV; expected > 0"):
        cubic().density_of_states(0.0)
    with pytest.raises(ValueError, match="mesh_length is -1 Ang; expected > 0"):
        predictor("H", orbitals=HYDROGEN).levels(Atoms("H", cell=[3] * 3, pbc=True), -1.0)


def test_models_without_a_hamiltonian_are_refused():
    model = potential(BandEdges(16))
    message = "predicts band_gap, cbm, vbm, has no learned Hamiltonian; .*HamiltonianEdges"
    with pytest.raises(ValueError, match=message):
        Predictor(model).levels(thermal()[1])
    heads = [HamiltonianEdges(["H"], CUTOFF, band_gap_key=key) for key in ("band_gap", "other")]
    with pytest.raises(ValueError, match="has 2 learned Hamiltonians"):
        hamiltonian_of(torch.nn.ModuleList(heads))


def test_unknown_elements_are_refused():
    with pytest.raises(ValueError, match="atomic number 53"):
        predictor("Ag", "S").levels(thermal(formula="Ag3SI")[1])
