"""The time that labels will take, from those of the same kind."""

import pytest

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.labels.labelling import label_job
from schnetpack_phonon.labels.monitor.durations import Durations
from schnetpack_phonon.labels.store import LabelStore, Record
from tests.data.data_fixtures import copper


def emt(min_atoms=1):
    from ase.calculators.emt import EMT

    return AseCalculator(EMT, min_atoms)


def timed(seconds, number=0, repeat=1, calculator=None, task="label"):
    job = label_job(calculator or emt(), copper(number).repeat(repeat), "", task)
    return Record(job.key, None, "no matter", job.input, seconds)


@pytest.fixture
def empty(tmp_path):
    return LabelStore(tmp_path / "labels.jsonl")


def test_from_labels_of_this_run(empty):
    known = Durations()
    for seconds in (20, 40):
        known.add(timed(seconds))
    text = known.expected(timed(0).input, 100, 2, empty)
    assert text == "about 0:25:00 by 2 at a time (30 s each, as those before)"
    assert known.expected(timed(0).input, 1, 2, empty).startswith("about 0:00:30 by")


def test_from_the_store_of_an_earlier_run(empty):
    empty.add(timed(7200))
    text = Durations().expected(timed(0).input, 4, 2, empty)
    assert text == "about 4:00:00 by 2 at a time (2:00:00 each, as such labels in the label store)"


@pytest.mark.parametrize(
    "other",
    [
        timed(9, repeat=2),
        timed(9, task="relax"),
        timed(None),
        Record("h0", None, "of version 0.1"),
    ],
)
def test_other_labels_tell_nothing(empty, other):
    known = Durations()
    known.add(other)
    empty.add(other)
    assert (
        known.expected(timed(0).input, 4, 2, empty) == "how long it takes is known after the first"
    )


def test_a_large_store_is_read_in_part(tmp_path, monkeypatch):
    store = LabelStore(tmp_path / "labels.jsonl")
    for number in range(7):
        store.add(timed(10 + number, number))
    monkeypatch.setattr("schnetpack_phonon.labels.monitor.durations._N_READ", 3)
    read = []
    monkeypatch.setattr(LabelStore, "__getitem__", lambda self, key: read.append(key) or timed(12))
    assert "12 s each" in Durations().expected(timed(0).input, 4, 2, store)
    assert read == list(store)[::3]
