"""Builds in steps, killed at any moment or beside each other."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schnetpack_phonon.data.database import DatabaseError
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.labels.labelling import Labeller
from schnetpack_phonon.labels.store import LabelStore
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.phonons.renormalization import Renormalised
from tests.data.data_fixtures import ensemble_data, rows, same
from tests.data.generation.generation_fixtures import UNRELAXED

ROOT = Path(__file__).parents[3]


def test_plan_is_what_can_be_labelled_next(tmp_path):
    """Stage by stage, until the database can be made; nothing is calculated or written for it."""
    data = ensemble_data(tmp_path, structure=UNRELAXED)
    stages = []
    while plan := data.generation.plan():
        stages.append({what: len(jobs) for what, jobs in plan.items()})
        assert data.generation.plan().keys() == plan.keys()
        _label(data.generation, plan)
    assert stages == [{"ideal crystals": 1, "force constants": 3}, {"phonon ensemble": 8}]
    n_labels = len(LabelStore(data.generation.label_store))
    data.prepare_data()
    assert len(LabelStore(data.generation.label_store)) == n_labels
    assert data.generation.plan() == {}
    other = ensemble_data(tmp_path, PhononEnsemble([100, 400], n_snapshots=4, seed=2))
    with pytest.raises(DatabaseError, match="made with other settings"):
        other.generation.plan()


def test_plan_asks_for_the_next_step_of_all_renormalisations(tmp_path):
    data = ensemble_data(
        tmp_path,
        structure=UNRELAXED,
        phonons=Renormalised(FiniteDisplacements(Instabilities()), n_samples=4),
    )
    _label(data.generation, data.generation.plan())
    plan = data.generation.plan()
    assert {what: len(jobs) for what, jobs in plan.items()} == {
        "renormalisation of Cu3PdAu at 100 K, step 1": 4,
        "renormalisation of Cu3PdAu at 300 K, step 1": 4,
    }


def _label(generation, plan):
    with ThreadPoolExecutor(2) as executor:
        labeller = Labeller(executor, LabelStore(generation.label_store))
        for what, jobs in plan.items():
            labeller.run(jobs, what)


@pytest.mark.parametrize("n_kills", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path, n_kills):
    """However often: no label is lost, none is computed twice, the database is the same."""
    command = [sys.executable, "-m", "tests.data.kills", str(tmp_path), str(n_kills)]
    told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    kills = [line.split() for line in told.splitlines()]
    assert len(kills) == n_kills
    builds = [tmp_path / str(number) / "data" for number in range(1 + int(kills[-1][0]))]
    whole = tmp_path / "undisturbed" / "data"
    labels = LabelStore(whole / "labels.jsonl")
    assert len(labels) == 2 + 2 + 6 + 40  # cells, ideal crystals, displacements, snapshots
    for folder in builds:
        assert rows(folder / "test.db") == rows(whole / "test.db")
        store = LabelStore(folder / "labels.jsonl")
        assert store.path.read_bytes().count(b"\n") == 1 + len(labels)
        assert sorted(store) == sorted(labels)
        assert all(same(store[key], labels[key]) for key in labels)


_BUILD = """
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from ase.calculators.emt import EMT
from schnetpack_phonon.calculators import AseCalculator
from tests.data.data_fixtures import ensemble_data
class Slow(EMT):
    def calculate(self, *args, **kwargs):
        time.sleep(0.01)
        super().calculate(*args, **kwargs)
Slow.__module__, Slow.__qualname__ = "ase.calculators.emt", "EMT"  # the same settings
ensemble_data(Path({folder!r}), calculator=AseCalculator(Slow)).prepare_data()
"""


def test_two_builders_make_one_database(built, tmp_path):
    command = [sys.executable, "-c", _BUILD.format(folder=str(tmp_path))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    builders = [subprocess.Popen(command, cwd=tmp_path, env=environment) for _ in range(2)]
    assert [builder.wait(timeout=300) for builder in builders] == [0, 0]
    store = (tmp_path / "data" / "labels.jsonl").read_text().splitlines()
    # Header, cells, ideal crystals, displacements for phonons, snapshots.
    assert len(store) == 1 + 2 + 2 + 6 + 16
    assert rows(tmp_path / "data" / "test.db") == rows(built.datapath)
