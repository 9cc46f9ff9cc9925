"""Elastic labels: through the store, against energies and force constants, and what has none."""

import logging
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT
from ase.optimize import BFGS
from ase.units import GPa

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.calculators.tight_binding import TightBinding
from schnetpack_phonon.common import properties
from schnetpack_phonon.labels.finite_strain import FiniteStrain
from schnetpack_phonon.labels.labelling import Labeller
from schnetpack_phonon.labels.store import LabelStore
from schnetpack_phonon.structures.crystals import antiperovskite
from schnetpack_phonon.structures.elasticity import finite_strains, strained


@pytest.fixture
def labels(store):
    """(atoms, ...) -> their labels with elastic tensors, as a run of data generation gives them."""

    def run(*structures: Atoms, calculator=None, **settings):
        calculator = calculator or AseCalculator(EMT)
        with ThreadPoolExecutor(1) as executor:
            return FiniteStrain(**settings).labels(
                Labeller(executor, LabelStore(store.path), max_failed_share=0.9),
                calculator,
                [(f"structure {k}", a, calculator.label(a)) for k, a in enumerate(structures)],
            )

    return run


def alloy(seed: int = 1) -> Atoms:
    """Ordered Cu3Au, displaced and under stress."""
    atoms = bulk("Cu", a=3.75, cubic=True)
    atoms.symbols[0] = "Au"
    atoms.rattle(0.08, seed=seed)
    return atoms


def relaxed_alloy() -> Atoms:
    """Cu and Au with a vacancy, no symmetry, atoms at their minimum in this cell."""
    atoms = bulk("Cu", a=3.8, cubic=True).repeat((2, 1, 1))
    atoms.symbols[[0, 3, 5]] = "Au"
    del atoms[1]
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-6)
    return atoms


def curvature(calculator, atoms: Atoms, strain: np.ndarray) -> float:
    """Second difference of the energy, divided by the volume, in GPa."""
    moved = [atoms if s == 0 else strained(atoms, s * strain) for s in (-1, 0, 1)]
    energies = [calculator.label(a)[properties.energy].item() for a in moved]
    return (energies[0] - 2 * energies[1] + energies[2]) / atoms.get_volume() / GPa


def test_tensor_is_the_curvature_of_the_energy(labels, emt):
    """Along each Voigt component; all other labels are kept."""
    atoms = alloy()
    (found,) = labels(atoms, strain=1e-3)
    tensor = found.pop(properties.elastic_tensor)
    assert tensor.shape == properties.array_shape(properties.elastic_tensor, len(atoms))
    np.testing.assert_array_equal(tensor, tensor.swapaxes(1, 2))
    expected = [curvature(emt, atoms, pair[0]) / 1e-6 for pair in finite_strains(1e-3)]
    np.testing.assert_allclose(np.diag(tensor[0]), expected, rtol=1e-4)
    plain = emt.label(atoms)
    assert found.keys() == plain.keys()
    np.testing.assert_array_equal(found[properties.stress], plain[properties.stress])


class _Counted(EMT):
    calls = 0

    def calculate(self, *args, **kwargs):
        _Counted.calls += 1
        super().calculate(*args, **kwargs)


def test_strained_copies_are_computed_once(labels):
    """Twelve of them beside the structure itself, which the second run asks for again."""
    _Counted.calls = 0
    first, again = (labels(alloy(), calculator=AseCalculator(_Counted))[0] for _ in range(2))
    assert _Counted.calls == 13 + 1
    np.testing.assert_array_equal(
        first[properties.elastic_tensor], again[properties.elastic_tensor]
    )


class _Sheared(EMT):
    """Fails under positive xy shear."""

    def calculate(self, atoms, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        if atoms.symbols[0] == "Au" and atoms.cell[0, 1] > 0:
            self.change()

    def change(self):
        raise CalculationFailed("not converged")


class _OtherState(_Sheared):
    """Jumps to another stress there."""

    def change(self):
        self.results["stress"] = self.results["stress"] + 1 * GPa


@pytest.mark.parametrize(
    ("calculator", "reason"),
    [
        (_Sheared, r"structure 0, strain \+xy failed: .*not converged"),
        (_OtherState, "structure 0: the triangles of an elastic tensor differ by"),
    ],
)
def test_tensor_that_cannot_be_told(labels, caplog, calculator, reason):
    """One strained copy fails, or has a stress that does not fit: others go on."""
    copper = bulk("Cu")
    with caplog.at_level(logging.WARNING):
        failed, fine = labels(alloy(), copper, calculator=AseCalculator(calculator))
    assert failed is None
    assert fine.keys() >= {properties.stress, properties.elastic_tensor}
    (record,) = caplog.records
    assert re.search(reason, record.getMessage())


def test_relaxed_ions_against_force_constants(labels, emt):
    """C_relaxed = C_clamped - L^T K^+ L / V, with L the forces by strain, K the force constants."""
    atoms = relaxed_alloy()
    step = 0.005
    (found,) = labels(atoms, strain=step, relaxed_ions=True)
    forces = [[emt.label(strained(atoms, s))["forces"] for s in p] for p in finite_strains(step)]
    by_strain = np.array([(plus - minus).ravel() / (2 * step) for plus, minus in forces])
    constants = []
    for shift in 1e-3 * np.eye(3 * len(atoms)).reshape(-1, len(atoms), 3):
        pair = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions += sign * shift
            pair.append(emt.label(moved)["forces"].ravel())
        constants.append((pair[1] - pair[0]) / 2e-3)
    inner = by_strain @ np.linalg.pinv(constants, rcond=1e-6) @ by_strain.T
    expected = found[properties.elastic_tensor][0] - inner / atoms.get_volume() / GPa
    relaxed = found[properties.elastic_tensor_relaxed][0]
    np.testing.assert_allclose(relaxed, expected, atol=0.3)  # forces end at 1e-3 eV/Ang
    assert np.abs(found[properties.elastic_tensor][0] - expected).max() > 10


def test_relaxed_ions_of_a_displaced_crystal(labels, store):
    message = r"structure 0: forces up to \d\.\d+ eV/Ang; expected at most 0.05.*relaxed_ions=false"
    with pytest.raises(ValueError, match=message):
        labels(alloy(), relaxed_ions=True)
    assert len(LabelStore(store.path)) == 0


@pytest.mark.parametrize("strain", [0.0, -0.01, 0.06])
def test_senseless_strains(strain):
    with pytest.raises(ValueError, match=r"data\.elastic\.strain is"):
        FiniteStrain(strain)


@pytest.mark.slow
def test_tight_binding(labels):
    """The default step: within a third of a GPa of second differences of the energy."""
    atoms = antiperovskite("Ag3SBr", 4.866).repeat(2)
    atoms.rattle(0.12, seed=1)
    calculator = TightBinding()
    (found,) = labels(atoms, calculator=calculator)
    tensor = found[properties.elastic_tensor][0]
    for component in (0, 3):
        expected = curvature(calculator, atoms, finite_strains(0.005)[component, 0]) / 0.005**2
        assert tensor[component, component] == pytest.approx(expected, abs=0.35)
