"""Relaxed crystals and their force constants, and what is said about them."""

import logging
from pathlib import Path
from types import SimpleNamespace

import ase.db
import numpy as np
import phonopy
import pytest
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.data.preparation import Recipe, prepare
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.labels.store import Record
from schnetpack_phonon.phonons.force_constants import harmonic_models
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Antiperovskites
from tests.data.data_fixtures import ALLOYS, ensemble_data


def test_lattice_is_relaxed_and_ideal_crystal_stored(built):
    with ase.db.connect(built.datapath) as db:
        row = db.get(1)
    ideal = row.toatoms()
    ideal.positions = row.data[properties.ideal_positions]
    ideal.calc = EMT()
    assert np.abs(ideal.get_forces()).max() < 1e-3
    assert np.abs(ideal.get_stress()).max() < 1e-3
    assert np.abs(ideal.positions - row.positions).max() > 1e-2
    np.testing.assert_allclose(ideal.positions.mean(axis=0), row.positions.mean(axis=0))


def test_force_constants_are_stored_for_phonopy(built):
    files = list((Path(built.datapath).parent / "phonons").glob("*/phonopy_params.yaml"))
    assert len(files) == len(ALLOYS)
    for file in files:
        phonon = phonopy.load(file, is_compact_fc=False, log_level=0)
        assert phonon.force_constants.shape == (40, 40, 3, 3)


@pytest.mark.parametrize("min_frequency", [0.0, 8.0])
def test_changed_real_modes_are_warned_of(
    tmp_path, caplog, rock_salt, stable, model, min_frequency
):
    instabilities = Instabilities(min_frequency=min_frequency)
    models = harmonic_models([rock_salt], [300.0], {"NaCl": stable}, instabilities)
    phonons = SimpleNamespace(models=lambda *_: models, settings={})
    structure = SimpleNamespace(crystals=[rock_salt], relax=False)
    ensemble = PhononEnsemble([300], n_snapshots=1, seed=0)
    recipe = Recipe(structure, phonons, ensemble, AseCalculator(EMT))
    labeller = SimpleNamespace(run=lambda jobs, what: [Record("h0", None, "failed") for _ in jobs])
    with caplog.at_level(logging.WARNING):
        prepare(recipe, labeller, tmp_path)
    n_real = (model.frequencies < min_frequency).sum()
    assert (n_real > 0) == (min_frequency > 0)
    expected = [f"NaCl: {n_real} of 45 modes are real but below"] if n_real else []
    assert [record.message.partition(" data.")[0] for record in caplog.records] == expected


class _NoLattice(EMT):
    def calculate(self, atoms, *args, **kwargs):
        raise CalculationFailed("no lattice")


def test_lattice_that_cannot_be_relaxed(tmp_path):
    data = ensemble_data(
        tmp_path,
        RandomEnsemble([0.1], n_snapshots=2, seed=1),
        AseCalculator(_NoLattice),
        structure=Antiperovskites(["Cu3PdAu"], lattice_constants=ALLOYS),
    )
    with pytest.raises(LabellingError, match=r"relaxation of Cu3PdAu failed: .*no lattice"):
        data.prepare_data()


@pytest.mark.parametrize(("relax", "warned"), [(False, True), (True, False)])
def test_crystals_that_look_unrelaxed(tmp_path, caplog, relax, warned):
    """A lattice constant 10 % too long, taken as it is or relaxed."""
    structure = Antiperovskites(
        ["Cu3PdAu"], relax=relax, lattice_constants={"Cu3PdAu": 1.02 * ALLOYS["Cu3PdAu"]}
    )
    data = ensemble_data(
        tmp_path, RandomEnsemble([0.1], n_snapshots=2, seed=1), structure=structure
    )
    with caplog.at_level(logging.WARNING):
        data.prepare_data()
    found = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Cu3PdAu: ")]
    assert [("looks unrelaxed" in text) for text in found] == [True] * warned
