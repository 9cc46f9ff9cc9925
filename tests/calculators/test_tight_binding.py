"""Labels of tblite agree with its own ASE interface, and are refused where they would be wrong."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.units import Hartree
from tblite.ase import TBLite

from schnetpack_phonon.calculators.tight_binding import TightBinding
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.executors import process_pool
from schnetpack_phonon.structures.crystals import antiperovskite


@pytest.fixture
def magnesia() -> Atoms:
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    atoms.rattle(0.05, seed=3)
    return atoms


def test_ase_interface_of_tblite(magnesia):
    """GFN1-xTB through the wrapper that tblite ships; and GFN1-noX where there is no halogen."""
    magnesia.calc = TBLite(method="GFN1-xTB", verbosity=0)
    energy, forces = magnesia.get_potential_energy(), magnesia.get_forces()
    for method in ("GFN1-xTB", "GFN1-noX"):
        labels = TightBinding(method).label(magnesia)
        assert labels[properties.energy][0] == pytest.approx(energy, abs=1e-6)
        np.testing.assert_allclose(labels[properties.forces], forces, atol=1e-6)
        stress = magnesia.get_stress(voigt=False)
        np.testing.assert_allclose(labels[properties.stress][0], stress, atol=1e-7)


def test_accuracy_reaches_the_code(magnesia):
    """The energy is variational: a loose one is off by little, a tight one by next to nothing."""
    coarse, fine, finer = (
        TightBinding(accuracy=accuracy).label(magnesia)[properties.energy][0]
        for accuracy in (1000, 0.1, 0.01)
    )
    assert abs(fine - finer) < 1e-6 < abs(coarse - finer) < 0.1


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


def test_tblite_beside_torch(magnesia):
    """In a worker of a process that loaded torch, whose libgomp can keep tblite from loading.

    A pool of its own: jobs of other tests load torch in the workers of the shared one.
    """
    import torch  # noqa: F401

    with process_pool(max_workers=1) as pool:
        labels = pool.submit(TightBinding().label, magnesia).result()
    np.testing.assert_allclose(
        labels[properties.energy], TightBinding().label(magnesia)[properties.energy]
    )


def test_no_convergence_is_a_failed_calculation(magnesia):
    with pytest.raises(CalculationFailed, match=r"GFN1-noX: .*not conv"):
        TightBinding(max_iterations=2).label(magnesia)


def test_other_mixing_where_the_first_does_not_converge():
    """Displaced iron: all mixings that converge give the same labels, so they are the labels."""
    iron = bulk("Fe", cubic=True).repeat((2, 1, 1))
    iron.rattle(0.05, seed=1)
    with pytest.raises(CalculationFailed, match="SCF not converged in 250 cycles"):
        TightBinding("GFN2-xTB", mixing=[]).label(iron)
    labels = TightBinding("GFN2-xTB").label(iron)
    others = TightBinding("GFN2-xTB", mixing=[0.1, 0.05]).label(iron)
    for key in labels:
        np.testing.assert_allclose(others[key], labels[key], atol=1e-3, err_msg=key)
    assert TightBinding("GFN2-xTB", mixing=[]).settings == TightBinding("GFN2-xTB").settings


def test_mixing_that_leads_to_other_states_gives_no_label(magnesia, monkeypatch):
    """Nobody knows which of them the first would have found."""
    converge = TightBinding._single_point

    def moody(self, atoms, damping=None):
        if damping is None:
            return converge(TightBinding(max_iterations=2), atoms)
        result = converge(self, atoms)
        return result | {"energy": result["energy"] + damping}

    monkeypatch.setattr(TightBinding, "_single_point", moody)
    with pytest.raises(CalculationFailed, match=r"not converged .* not twice to the same state"):
        TightBinding().label(magnesia)
    assert TightBinding(mixing=[0.2, 0.1, 0.2]).label(magnesia)


@pytest.mark.parametrize("method", ["GFN1-xTB", "IPEA1-xTB"])
@pytest.mark.parametrize("formula", ["Ag3SBr", "Ag3SI", "Ag3PBr"])
def test_halogen_bond_term_is_refused(method, formula):
    atoms = antiperovskite(formula, 4.9).repeat(2)
    with pytest.raises(ValueError, match=f"{method} .* halogen-bond term .* GFN1-noX"):
        TightBinding(method).check(atoms)
    TightBinding("GFN1-noX").check(atoms)
    TightBinding("GFN2-xTB").check(atoms)


def test_elements_without_parameters_are_named():
    with pytest.raises(
        ValueError, match="GFN2-xTB has no parameters for U; expected elements up t"
    ):
        TightBinding("GFN2-xTB").check(
            bulk("UO2", "fluorite", a=5.47, cubic=True).repeat((2, 2, 1))
        )


def test_electrons_are_counted():
    """GFN1 shares four electrons among the three highest valence levels of MgO: there is no gap."""
    labels = TightBinding("GFN1-xTB").label(bulk("MgO", "rocksalt", a=4.21, cubic=True))
    assert labels[properties.band_gap].item() == pytest.approx(0, abs=1e-6)
    assert labels[properties.partial_occupation].item() == pytest.approx(2 / 3, abs=1e-3)
    labels = TightBinding("GFN1-xTB").label(bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    assert labels[properties.band_gap].item() > 4
    assert labels[properties.partial_occupation].item() < 1e-6


def test_levels_are_those_of_tblite(magnesia):
    """The five on either side of the gap, in eV; settings name them, so that keys change."""
    calculation = TBLite(method="GFN1-xTB", verbosity=0)
    magnesia.calc = calculation
    magnesia.get_potential_energy()
    energies = calculation._res.get("orbital-energies") * Hartree
    calculator = TightBinding("GFN1-xTB", n_levels=5)
    labels = calculator.label(magnesia)
    n_filled = round(calculation._res.get("orbital-occupations").sum()) // 2
    expected = np.sort(energies)[n_filled - 5 : n_filled + 5]
    np.testing.assert_allclose(labels[properties.levels], expected[None, None], atol=1e-5)
    np.testing.assert_array_equal(labels[properties.kpoints], [[[0, 0, 0, 1]]])
    assert labels[properties.levels][0, 0, 4] == pytest.approx(labels[properties.vbm].item())
    assert set(labels) == set(calculator.properties)
    assert calculator.settings == TightBinding("GFN1-xTB").settings | {"n_levels": 5}
    with pytest.raises(CalculationFailed, match=r"n_levels=40 needs as many of both"):
        TightBinding("GFN1-xTB", n_levels=40).label(magnesia)


def test_small_cells_are_refused():
    with pytest.raises(ValueError, match="has 5 atoms; GFN1-noX is Gamma-only and needs >= 40"):
        TightBinding().check(antiperovskite("Ag3SBr"))


def test_unknown_method():
    with pytest.raises(ValueError, match="method is 'GFN3'; expected GFN1-noX"):
        TightBinding("GFN3")


def test_magnetic_moments_are_refused():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(2)
    atoms.set_initial_magnetic_moments([1, -1] * 32)
    with pytest.raises(ValueError, match="Na32 has magnetic moments up to 1; GFN1-noX computes"):
        TightBinding().check(atoms)
