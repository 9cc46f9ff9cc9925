"""Labels are derivatives, fit together, and are refused where they would be wrong."""

import json
import pickle
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.calculators.emt import EMT

from schnetpack_phonon.calculators.base import (
    AseCalculator,
    as_ase_calculator,
    labels_from_results,
)
from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.calculators.external_code import ExternalCode
from schnetpack_phonon.calculators.output import NotConverged
from schnetpack_phonon.calculators.tight_binding import TightBinding
from schnetpack_phonon.common import properties
from schnetpack_phonon.structures.crystals import antiperovskite
from tests.calculators.code_fixtures import CODES, distorted

rattled = partial(distorted, stdev=0.05, seed=1)
ALUMINIUM = rattled(bulk("Al", cubic=True).repeat((2, 1, 1)))
ANTIPEROVSKITE = rattled(antiperovskite("Ag3SBr", 4.87).repeat(2))
MAGNESIA = rattled(bulk("MgO", "rocksalt", a=4.2, cubic=True))
PHOSPHIDE = rattled(bulk("AlP", "zincblende", a=5.46))
ARSENIDE = rattled(bulk("AlAs", "zincblende", a=5.6))
METAL = rattled(bulk("Al").repeat((1, 1, 2)))
HOT = {"electronic_temperature": 3000}  # enough for the entropy of the electrons to matter


def installed(name: str, **options) -> ExternalCode:
    """A code as it can be run here, well converged."""
    code = CODES[name]
    return code.make(**(code.installed | code.accurate | options))


class Smeared(EMT):
    """Its energy is extrapolated to zero smearing; forces are the gradient of the free energy."""

    def calculate(self, *args):
        super().calculate(*args)
        entropy = 0.1 + 0.02 * np.sin(self.atoms.positions).sum()  # times the temperature
        self.results["energy"] = self.results["free_energy"] + entropy / 2


CASES = {
    "EMT": (AseCalculator(EMT), ALUMINIUM),
    "EMT with smearing": (AseCalculator(Smeared), ALUMINIUM),
    "GFN1-noX": (TightBinding(), ANTIPEROVSKITE),
    "GFN2-xTB": (TightBinding("GFN2-xTB"), MAGNESIA),
    "CP2K": (CP2K(), PHOSPHIDE),
    "CP2K at Gamma": (CP2K(kpoints=[1, 1, 1]), PHOSPHIDE),
    "CP2K of a metal": (CP2K(**HOT), METAL),
    "Quantum ESPRESSO": (installed("Quantum ESPRESSO"), ARSENIDE),
    "Quantum ESPRESSO of a metal": (installed("Quantum ESPRESSO", **HOT), METAL),
    "GPAW": (installed("GPAW"), PHOSPHIDE),
    "GPAW of a metal": (installed("GPAW", **HOT), METAL),
}


def marks(case: str) -> list[pytest.MarkDecorator]:
    needed = [code.needed for name, code in CODES.items() if case.startswith(name)]
    return [pytest.mark.slow, *needed] if needed else []


@pytest.fixture(
    scope="module",
    params=[pytest.param(case, marks=marks(case)) for case in CASES],
)
def labelled(request):
    calculator, atoms = CASES[request.param]
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
    if properties.band_gap in labels:
        gap = labels[properties.cbm] - labels[properties.vbm]
        np.testing.assert_allclose(labels[properties.band_gap], gap)
        assert gap >= 0
        assert (gap > 0) == (len(set(atoms.symbols)) > 1)  # the compounds here are no metals


def test_forces_are_the_gradient(labelled):
    """Central difference along one random displacement of all atoms."""
    calculator, atoms, labels = labelled
    forces = labels[properties.forces]
    direction = np.random.default_rng(5).normal(size=forces.shape)
    energies = []
    for step in (-2e-3, 2e-3):
        moved = atoms.copy()
        moved.positions += step * direction
        energies.append(calculator.label(moved)[properties.energy][0])
    slope = (energies[1] - energies[0]) / 4e-3
    expected = -np.sum(forces * direction)
    assert slope == pytest.approx(expected, abs=3e-3 * np.linalg.norm(forces))


def test_stress_is_the_strain_derivative(labelled):
    """Stress : eps = (dE / d lambda) / V for cell @ (1 + lambda eps), one random symmetric eps."""
    calculator, atoms, labels = labelled
    stress = labels[properties.stress][0]
    strain = np.random.default_rng(6).normal(size=(3, 3))
    strain = (strain + strain.T) / 10
    energies = []
    for step in (-2e-3, 2e-3):
        moved = atoms.copy()
        moved.set_cell(atoms.cell @ (np.eye(3) + step * strain), scale_atoms=True)
        energies.append(calculator.label(moved)[properties.energy][0])
    slope = (energies[1] - energies[0]) / 4e-3 / atoms.get_volume()
    expected = np.sum(stress * strain)
    assert slope == pytest.approx(expected, abs=1e-3 * np.linalg.norm(stress))


def test_calculator_for_ase_gives_the_same_labels(labelled):
    """What relaxes the lattice is what labels, also after the atoms moved."""
    calculator, atoms, labels = labelled
    moved = atoms.copy()
    moved.positions[0] += 0.1
    moved.calc = calculator.ase_calculator()
    energy = partial(moved.get_potential_energy, force_consistent=True)
    assert abs(energy() - labels[properties.energy][0]) > 1e-3
    moved.positions = atoms.positions
    assert energy() == pytest.approx(labels[properties.energy][0], abs=1e-6)
    np.testing.assert_allclose(moved.get_forces(), labels[properties.forces], atol=1e-6)
    stress = moved.get_stress(voigt=False)
    np.testing.assert_allclose(stress, labels[properties.stress][0], atol=1e-6)


def test_ase_calculator_of_a_function():
    """It calculates once for every structure."""
    calls = []

    def results(atoms):
        calls.append(len(atoms))
        return {"energy": atoms.positions.sum(), "forces": -np.ones((len(atoms), 3))}

    atoms = bulk("Cu", cubic=True)
    atoms.calc = as_ase_calculator(results)
    for shift in (0.0, 0.1):
        atoms.positions += shift
        assert atoms.get_potential_energy() == atoms.positions.sum()
        assert atoms.get_forces().sum() == -12
    assert calls == [4, 4]


RESULTS = {"energy": -1.0, "forces": np.zeros((2, 3)), "stress": np.zeros(6)}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("energy", np.inf),
        ("forces", np.full((2, 3), np.nan)),
        ("stress", [0, 0, np.nan, 0, 0, 0]),
        ("vbm", np.nan),
    ],
)
def test_labels_that_are_not_finite(key, value):
    results = RESULTS | {"vbm": 0.0, "cbm": 1.0, key: value}
    with pytest.raises(CalculationFailed, match=f"not finite: .*{key}"):
        labels_from_results(Atoms("Cu2"), results)


@pytest.mark.parametrize(
    ("vbm", "cbm", "edges"),
    [(0.5, 1.25, (0.5, 1.25)), (1.25, 0.5, (0.875, 0.875)), (0.5, 0.5, (0.5, 0.5))],
)
def test_overlapping_bands_have_no_gap(vbm, cbm, edges):
    """Nor edges: the middle of the overlap stands for both."""
    labels = labels_from_results(Atoms("Cu2"), RESULTS | {"vbm": vbm, "cbm": cbm})
    assert (labels[properties.vbm], labels[properties.cbm]) == edges
    assert labels[properties.band_gap] == edges[1] - edges[0]


@pytest.mark.parametrize("key", [properties.band_gap_gamma, properties.partial_occupation])
def test_further_results_are_kept(key):
    labels = labels_from_results(Atoms("Cu2"), RESULTS | {key: 0.3, "magmom": -2.0})
    assert labels.keys() - labels_from_results(Atoms("Cu2"), RESULTS).keys() == {key}
    np.testing.assert_array_equal(labels[key], [0.3])


def test_gaps_of_each_spin_are_kept():
    labels = labels_from_results(Atoms("Cu2"), RESULTS | {"band_gap_spin": np.array([0.5, 0])})
    np.testing.assert_array_equal(labels[properties.band_gap_spin], [[0.5, 0]])
    with pytest.raises(CalculationFailed, match="not finite: band_gap_spin"):
        labels_from_results(Atoms("Cu2"), RESULTS | {"band_gap_spin": [0.5, np.nan]})


def test_code_without_stress_is_a_failed_calculation():
    class EnergyAlone(Calculator):
        implemented_properties = ("energy",)

        def calculate(self, *args):
            self.results = {"energy": 0.0}

    with pytest.raises(CalculationFailed, match="energy, forces and stress are needed"):
        AseCalculator(EnergyAlone).label(bulk("Cu"))


class Said(EMT):
    """Says whether it converged."""

    def __init__(self, converged):
        super().__init__()
        self.converged = converged


def test_calculator_that_says_that_it_did_not_converge():
    copper = bulk("Cu", cubic=True)
    assert AseCalculator(partial(Said, True)).label(copper)
    with pytest.raises(NotConverged, match="Said says that it did not converge"):
        AseCalculator(partial(Said, False)).label(copper)


class WithLevels(EMT):
    """Two k-points, two electrons, as GPAW and others give them."""

    def get_ibz_k_points(self):
        return np.array([[0, 0, 0], [0.5, 0, 0]])

    def get_k_point_weights(self):
        return np.array([0.25, 0.75])

    def get_number_of_spins(self):
        return 1

    def get_eigenvalues(self, kpt=0, spin=0):
        return np.array([[-3.0, 1.0], [-2.0, 1.5]])[kpt]

    def get_occupation_numbers(self, kpt=0, spin=0):
        return np.array([2.0, 0.0])


def test_band_edges_of_an_ase_calculator():
    """If they are asked for; labels without them keep their keys."""
    copper = bulk("Cu", cubic=True)
    without, calculator = AseCalculator(WithLevels), AseCalculator(WithLevels, band_edges=True)
    assert "band_edges" not in without.settings
    assert set(without.label(copper)) == set(without.properties)
    labels = calculator.label(copper)
    assert set(labels) == {*calculator.properties, "band_gap_gamma"}
    found = {key: labels[key].item() for key in ("vbm", "cbm", "band_gap", "band_gap_gamma")}
    assert found == {"vbm": -2.0, "cbm": 1.0, "band_gap": 3.0, "band_gap_gamma": 4.0}
    with pytest.raises(CalculationFailed, match=r"EMT gives no levels .*band_edges=false"):
        AseCalculator(EMT, band_edges=True).label(copper)


def test_small_cells_are_refused():
    calculator = AseCalculator(EMT, min_atoms=4)
    calculator.check(bulk("Cu", cubic=True))
    named = r"Cu3 has 3 atoms; ase.calculators.emt.EMT is set to need >= 4: enlarge data.structure"
    with pytest.raises(ValueError, match=named):
        calculator.check(bulk("Cu").repeat((1, 1, 3)))


VARIANTS = [
    TightBinding(),
    TightBinding("GFN2-xTB"),
    TightBinding(electronic_temperature=50),
    TightBinding(accuracy=0.1),
    TightBinding(max_iterations=50),
    *(code.make() for code in CODES.values()),
    AseCalculator(EMT),
    AseCalculator(partial(EMT, asap_cutoff=True)),
    AseCalculator(EMT, band_edges=True),
]


def test_settings_tell_calculators_apart():
    """As plain values, and the same after the trip to a worker."""
    settings = [json.dumps(calculator.settings) for calculator in VARIANTS]
    assert len(set(settings)) == len(VARIANTS)
    there = [json.dumps(pickle.loads(pickle.dumps(c)).settings) for c in VARIANTS]
    assert there == settings
