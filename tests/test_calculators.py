"""Labels are derivatives, agree with other codes, and are refused where they would be wrong."""

import json
import pickle
from functools import partial

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.calculators.emt import EMT
from ase.stress import voigt_6_to_full_3x3_stress
from scipy.optimize import minimize_scalar
from tblite.ase import TBLite

from schnetpack_phonon import properties
from schnetpack_phonon.calculators import (
    AseCalculator,
    TightBinding,
    band_edges,
    labels_from_results,
    relax,
    voigt_to_tensor,
)
from schnetpack_phonon.structures import Crystal, antiperovskite, supercell_matrix


def rattled(atoms: Atoms, sigma: float = 0.05) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(3).normal(0, sigma, atoms.positions.shape)
    return atoms


def antiperovskite_2x2x2() -> Atoms:
    return rattled(antiperovskite("Ag3SBr", 4.87).repeat(2))


def magnesia() -> Atoms:
    return rattled(bulk("MgO", "rocksalt", a=4.2, cubic=True))


CASES = {
    "EMT": (AseCalculator(EMT), lambda: rattled(bulk("Al", cubic=True).repeat((2, 1, 1)))),
    "GFN1-noX": (TightBinding(), antiperovskite_2x2x2),
    "GFN2-xTB": (TightBinding("GFN2-xTB"), magnesia),
}


@pytest.fixture(scope="module", params=CASES)
def labelled(request):
    calculator, make = CASES[request.param]
    atoms = make()
    return calculator, atoms, calculator.label(atoms)


def test_labels_fit_together(labelled):
    calculator, atoms, labels = labelled
    assert set(labels) == set(calculator.properties)
    for key, value in labels.items():
        assert value.shape == properties.array_shape(key, len(atoms))
    stress = labels[properties.stress]
    np.testing.assert_allclose(stress, stress.swapaxes(1, 2), atol=1e-8)
    np.testing.assert_allclose(np.trace(stress[0]) / 3, labels[properties.hydrostatic_stress][0])
    np.testing.assert_allclose(
        labels[properties.energy_per_atom] * len(atoms), labels[properties.energy]
    )
    if isinstance(calculator, TightBinding):
        gap = labels[properties.cbm] - labels[properties.vbm]
        np.testing.assert_allclose(labels[properties.band_gap], gap)
        assert gap > 0


def test_forces_are_the_gradient(labelled):
    """Central difference along one random displacement of all atoms."""
    calculator, atoms, labels = labelled
    direction = np.random.default_rng(5).normal(size=(len(atoms), 3))
    energies = []
    for step in (-5e-3, 5e-3):
        moved = atoms.copy()
        moved.positions += step * direction
        energies.append(calculator.label(moved)[properties.energy][0])
    slope = (energies[1] - energies[0]) / 1e-2
    assert slope == pytest.approx(
        -np.sum(labels[properties.forces] * direction), rel=2e-3, abs=1e-3
    )


def test_stress_is_the_strain_derivative(labelled):
    """Stress : eps = (dE / d lambda) / V for cell @ (1 + lambda eps), one random symmetric eps."""
    calculator, atoms, labels = labelled
    strain = np.random.default_rng(6).normal(size=(3, 3))
    strain = (strain + strain.T) / 10
    energies = []
    for step in (-1e-3, 1e-3):
        moved = atoms.copy()
        moved.set_cell(atoms.cell @ (np.eye(3) + step * strain), scale_atoms=True)
        energies.append(calculator.label(moved)[properties.energy][0])
    slope = (energies[1] - energies[0]) / 2e-3 / atoms.get_volume()
    assert slope == pytest.approx(np.sum(labels[properties.stress][0] * strain), rel=5e-3)


def test_ase_interface_of_tblite():
    """GFN1-xTB through the wrapper that tblite ships; and GFN1-noX where there is no halogen."""
    atoms = magnesia()
    atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
    for method in ("GFN1-xTB", "GFN1-noX"):
        labels = TightBinding(method).label(atoms)
        assert labels[properties.energy][0] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(labels[properties.forces], atoms.get_forces(), atol=1e-6)
        stress = atoms.get_stress(voigt=False)
        np.testing.assert_allclose(labels[properties.stress][0], stress, atol=1e-7)


def halogen_bond_energy(atoms: Atoms) -> float:
    """In eV per atom, by tblite."""
    energies = [TightBinding(m).label(atoms)[properties.energy_per_atom][0] for m in GFN1]
    return energies[0] - energies[1]


GFN1 = ("GFN1-xTB", "GFN1-noX")


@pytest.mark.parametrize(
    "atoms",
    [
        bulk("NaCl", "rocksalt", a=5.6, cubic=True),
        antiperovskite("Li3OF", 3.9).repeat((2, 1, 1)),
        bulk("Al", cubic=True).repeat((2, 1, 1)),
    ],
    ids=lambda atoms: atoms.get_chemical_formula(),
)
def test_no_halogen_bonds_where_builtin_gfn1_is_accepted(atoms):
    TightBinding("GFN1-xTB", min_atoms=8).check(atoms)
    assert halogen_bond_energy(atoms) == pytest.approx(0, abs=1e-6)


def test_halogen_bonds_where_builtin_gfn1_is_refused():
    """They are nonsense, tens of eV: this test fails when tblite repairs them."""
    assert halogen_bond_energy(antiperovskite("Li3SI", 4.6).repeat((2, 1, 1))) < -10


def test_tblite_beside_torch(pool):
    """In a worker of a process that loaded torch, whose libgomp can keep tblite from loading."""
    import torch  # noqa: F401

    labels = pool.submit(TightBinding().label, magnesia()).result()
    np.testing.assert_allclose(
        labels[properties.energy], TightBinding().label(magnesia())[properties.energy]
    )


def test_calculator_for_ase_gives_the_same_labels():
    """What relaxes the lattice is what labels, also after the atoms moved."""
    atoms = magnesia()
    atoms.calc = TightBinding().ase_calculator()
    atoms.get_potential_energy()
    atoms.positions[0] += 0.1
    labels = TightBinding().label(atoms)
    np.testing.assert_allclose(atoms.get_forces(), labels[properties.forces], atol=1e-9)
    np.testing.assert_allclose(atoms.get_stress(voigt=False), labels[properties.stress][0])


@pytest.mark.parametrize(
    ("occupations", "edges"),
    [
        ([2.0, 2.0, 0.0, 0.0], (-3.0, 1.0)),
        ([1.9, 1.2, 0.8, 0.1], (-3.0, 1.0)),
        ([2.0, 0.9, 0.6, 0.5], (-5.0, -3.0)),
    ],
)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_band_edges(occupations, edges, order):
    energies = np.array([-5.0, -3.0, 1.0, 2.0])
    assert band_edges(energies[order], np.array(occupations)[order]) == edges


@pytest.mark.parametrize("occupations", [[2.0, 2.0], [0.0, 0.5]])
def test_no_band_edge(occupations):
    with pytest.raises(CalculationFailed, match=r"no band edge: [20] of 2"):
        band_edges(np.array([-1.0, 1.0]), np.array(occupations))


def test_voigt_order_is_the_one_of_ase():
    voigt = np.arange(1.0, 7.0)
    tensor = voigt_to_tensor(voigt)
    np.testing.assert_array_equal(tensor, voigt_6_to_full_3x3_stress(voigt))
    np.testing.assert_array_equal(voigt_to_tensor(tensor), tensor)


@pytest.mark.parametrize(
    ("key", "value"),
    [("energy", np.inf), ("forces", np.full((2, 3), np.nan)), ("stress", [0, 0, np.nan, 0, 0, 0])],
)
def test_labels_that_are_not_finite(key, value):
    results = {"energy": -1.0, "forces": np.zeros((2, 3)), "stress": np.zeros(6), key: value}
    with pytest.raises(CalculationFailed, match=f"not finite: .*{key}"):
        labels_from_results(Atoms("Cu2"), results)


def test_overlapping_bands_have_no_gap():
    results = {
        "energy": -1.0,
        "forces": np.zeros((2, 3)),
        "stress": np.zeros(6),
        "vbm": 1,
        "cbm": 0,
    }
    assert labels_from_results(Atoms("Cu2"), results)[properties.band_gap] == 0


def test_no_convergence_is_a_failed_calculation():
    with pytest.raises(CalculationFailed, match=r"GFN1-noX: .*not conv"):
        TightBinding(max_iterations=2).label(magnesia())


def test_code_without_stress_is_a_failed_calculation():
    class EnergyAlone(Calculator):
        implemented_properties = ("energy",)

        def calculate(self, *args):
            self.results = {"energy": 0.0}

    with pytest.raises(CalculationFailed, match="energy, forces and stress are needed"):
        AseCalculator(EnergyAlone).label(bulk("Cu"))


@pytest.mark.parametrize("method", ["GFN1-xTB", "IPEA1-xTB"])
@pytest.mark.parametrize("formula", ["Ag3SBr", "Ag3SI", "Ag3PBr"])
def test_halogen_bond_term_is_refused(method, formula):
    atoms = antiperovskite(formula, 4.9).repeat(2)
    with pytest.raises(ValueError, match=f"{method} .* halogen-bond term .* GFN1-noX"):
        TightBinding(method).check(atoms)
    TightBinding("GFN1-noX").check(atoms)
    TightBinding("GFN2-xTB").check(atoms)


def test_small_cells_are_refused():
    with pytest.raises(ValueError, match="has 5 atoms; GFN1-noX is Gamma-only and needs >= 40"):
        TightBinding().check(antiperovskite("Ag3SBr"))
    with pytest.raises(ValueError, match=r"has 4 atoms; ase.calculators.emt.EMT .* >= 8"):
        AseCalculator(EMT, min_atoms=8).check(bulk("Cu", cubic=True))


def test_unknown_method():
    with pytest.raises(ValueError, match="unknown xTB method 'GFN3'; there are GFN1-noX"):
        TightBinding("GFN3")


VARIANTS = [
    TightBinding(),
    TightBinding("GFN2-xTB"),
    TightBinding(electronic_temperature=50),
    TightBinding(accuracy=0.1),
    TightBinding(max_iterations=50),
    AseCalculator(EMT),
    AseCalculator(partial(EMT, asap_cutoff=True)),
]


def test_settings_tell_calculators_apart():
    """As plain values, and the same after the trip to a worker."""
    settings = [json.dumps(calculator.settings) for calculator in VARIANTS]
    assert len(set(settings)) == len(VARIANTS)
    there = [json.dumps(pickle.loads(pickle.dumps(c)).settings) for c in VARIANTS]
    assert there == settings


def test_relax_finds_the_lattice_constant(emt):
    """Of fcc copper, from 3 % off: the minimum of the energy by an independent scan."""

    def energy(a):
        atoms = bulk("Cu", a=a, cubic=True)
        atoms.calc = EMT()
        return atoms.get_potential_energy()

    expected = minimize_scalar(energy, bracket=(3.5, 3.6, 3.7), tol=1e-8).x
    crystal = Crystal("Cu", bulk("Cu", a=3.7), supercell_matrix([2, 2, 2]))
    relaxed = relax(emt, crystal)
    assert relaxed.cell.lengths() * 2**0.5 == pytest.approx([expected] * 3, rel=1e-3)
    assert relaxed.calc is None
    assert not relaxed.constraints


def layered_alloy() -> Crystal:
    """Ag-Cu-Cu-Cu layers of an fcc stack, P4/mmm, with a free height of two of them."""
    heights = [0.0, 0.27, 0.5, 0.73]
    sites = [(x, x, z) for x, z in zip((0.0, 0.5, 0.0, 0.5), heights, strict=True)]
    atoms = Atoms("AgCu3", cell=[2.65, 2.65, 7.4], scaled_positions=sites, pbc=True)
    return Crystal("AgCu3", atoms, supercell_matrix([2, 2, 1]))


@pytest.mark.filterwarnings("ignore:Warning. Point group symmetries")  # [2, 2, 1] of tetragonal
def test_relax_keeps_the_symmetry_and_moves_what_is_free(emt):
    relaxed = relax(emt, layered_alloy(), fmax=1e-3)
    cell = (relaxed.cell.array, relaxed.get_scaled_positions(), relaxed.numbers)
    assert spglib.get_symmetry_dataset(cell, symprec=1e-5).number == 123
    relaxed.calc = EMT()
    assert np.abs(relaxed.get_forces()).max() < 1e-3
    assert np.abs(relaxed.get_stress()).max() * relaxed.get_volume() / 4 < 1e-3
    z = relaxed.get_scaled_positions()[1, 2]
    assert 0.24 < z < 0.2699


def test_relax_keeps_an_unstable_symmetry(emt):
    """Body-centred copper, a thousandth off cubic, would fall to fcc were it free to."""
    atoms = bulk("Cu", "bcc", a=2.87, cubic=True)
    atoms.set_cell(np.diag([2.87, 2.87, 2.87 * 1.001]), scale_atoms=True)
    relaxed = relax(emt, Crystal("Cu", atoms, supercell_matrix([2, 2, 2])), fmax=1e-4)
    np.testing.assert_allclose(relaxed.cell.lengths(), relaxed.cell.lengths()[0], rtol=1e-6)


def test_relax_that_does_not_converge(emt):
    with pytest.raises(CalculationFailed, match=r"AgCu3 did not relax to .* in 1 steps"):
        relax(emt, layered_alloy(), max_steps=1)


def test_relax_refuses_small_supercells():
    with pytest.raises(ValueError, match="needs >= 40"):
        relax(TightBinding(), layered_alloy())
