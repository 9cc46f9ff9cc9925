"""SevenNet: what is said without it, and its labels where it is installed."""

from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator

from schnetpack_phonon.calculators.potentials import sevennet
from schnetpack_phonon.calculators.potentials.sevennet import SevenNet
from schnetpack_phonon.common.errors import UnavailableError

SILICON = bulk("Si", cubic=True)


class Known(Calculator):
    """In place of the network: it knows silicon, and each atom has -1 eV."""

    def __init__(self):
        super().__init__()
        self.type_map = {14: 0}

    def calculate(self, atoms=None, properties=None, system_changes=None):
        self.results = {"energy": -len(atoms), "forces": np.zeros((len(atoms), 3))}
        self.results["stress"] = np.arange(6.0)


@pytest.fixture
def known(monkeypatch):
    one = Known()
    monkeypatch.setattr(sevennet, "_loaded", lambda *_: one)
    monkeypatch.setattr(sevennet, "package_version", lambda name: "0.13.0")
    return one


def test_it_is_said_when_it_is_not_installed(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(sevennet, "package_version", missing)
    with pytest.raises(UnavailableError, match=r"pip install \"schnetpack_phonon\[sevennet\]\""):
        SevenNet().check(SILICON)


def test_elements_that_it_does_not_know(known):
    SevenNet().check(SILICON)
    with pytest.raises(ValueError, match=r"AsGa holds As, Ga, which SevenNet .* 1 elements"):
        SevenNet().check(bulk("GaAs", "zincblende", a=5.65))


def test_identity_holds_model_and_version(known, tmp_path):
    file = tmp_path / "fine_tuned.pth"
    with pytest.raises(ValueError, match=r"'7net-9'; expected 7net-0 or 7net-l3i5"):
        SevenNet("7net-9")
    assert SevenNet().settings == {"code": "SevenNet", "model": "7net-0"}
    assert SevenNet().code_version == "sevenn 0.13.0"
    found = []
    for content in ("one", "two"):
        file.write_text(content)
        found.append(SevenNet(str(file)).settings["model"])
    assert found[0] != found[1]
    assert not any(str(tmp_path) in one for one in found)


def test_labels_share_the_network_only(known):
    """Results of one structure are not those of the next."""
    calculator = SevenNet()
    one, two = calculator.label(SILICON), calculator.label(SILICON * 2)
    assert (one["energy"].item(), two["energy"].item()) == (-8, -64)
    np.testing.assert_array_equal(one["stress"][0], [[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    assert known.results == {}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("sevenn") is None, reason="needs sevenn")
def test_forces_and_stress_are_derivatives():
    atoms = SILICON.copy()
    atoms.rattle(0.1, seed=1)
    labels = SevenNet().label(atoms)
    direction = np.random.default_rng(2).normal(size=(8, 3))
    energies = []
    for step in (-1e-2, 1e-2):
        moved = atoms.copy()
        moved.positions += step * direction
        energies.append(SevenNet().label(moved)["energy"].item())
    slope = (energies[1] - energies[0]) / 2e-2
    assert slope == pytest.approx(-(labels["forces"] * direction).sum(), rel=2e-2)
    energies = []
    for step in (-2e-3, 2e-3):
        moved = atoms.copy()
        moved.set_cell(atoms.cell * (1 + step), scale_atoms=True)
        energies.append(SevenNet().label(moved)["energy"].item())
    slope = (energies[1] - energies[0]) / 4e-3 / atoms.get_volume()
    assert slope == pytest.approx(3 * labels["hydrostatic_stress"].item(), rel=2e-2)
