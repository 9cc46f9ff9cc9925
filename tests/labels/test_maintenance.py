"""Stores are summarised, merged and pruned without loss of labels."""

import re
from dataclasses import replace

import numpy as np
import pytest

from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.labels.maintenance import merge, outdated, prune, summary
from schnetpack_phonon.labels.store import LabelStore
from tests.data.data_fixtures import failure, labelled_copper, record, same

REASON = "CalculationFailed: not converged"


@pytest.fixture
def filled(tmp_path):
    """(name, records) -> path of a store."""

    def make(name, *records):
        store = LabelStore(tmp_path / name)
        for item in records:
            store.add(item)
        return store.path

    return make


def test_summary_counts_by_code_and_gives_reasons(filled):
    old = [labelled_copper(n, "ase 3.22") for n in range(3)]
    path = filled("a.jsonl", *old, *map(labelled_copper, range(3, 21)), record(30), failure(31))
    text = summary(path)
    assert f"{path}: 19 finished labels, 4 failed calculations, 0." in text
    table = re.sub(" +", " ", text)
    assert "| ase 3.22 | 1 | label | 2 | 1 | not recorded |" in table
    assert "| ase 3.25 | 1 | label | 16 | 2 | not recorded |" in table
    assert "| not recorded | | | 1 | 1 | not recorded |" in table
    assert "settings 1: code ase.calculators.emt.EMT" in table
    assert f"| {REASON} | 3 | copper 0 |" in table
    assert "| no convergence | 1 | h31 |" in table


def test_energies_of_ase_before_they_were_free_energies(filled):
    """They have no mark; those of other codes were always free energies."""
    path = filled("a.jsonl", *map(labelled_copper, range(1, 5)), record(30), failure(31))
    assert not outdated(LabelStore(path), LabelStore(path))
    header, *lines = path.read_bytes().splitlines(keepends=True)
    old = [line.replace(b'"energy":"free",', b"") for line in lines[:2]]
    assert old != lines[:2]
    path.write_bytes(b"".join([header, *old, *lines[2:]]))
    (warning,) = outdated(LabelStore(path), LabelStore(path))
    assert warning.startswith(f"2 of 5 labels in {path} (ase) were computed before their energy")
    assert warning in summary(path)
    path.write_bytes(path.read_bytes().replace(b'"code":"ase 3.25"', b'"code":"CP2K 2023.1"'))
    assert not outdated(LabelStore(path), LabelStore(path))
    path.write_bytes(path.read_bytes().replace(b'"code":"CP2K 2023.1"', b'"code":"tblite 0.4"'))
    (warning,) = outdated(LabelStore(path), LabelStore(path))
    assert "4 of 5 labels" in warning
    assert "before electrons were counted" in warning


def test_hours_of_labels(filled):
    """Of those that have them, failed ones among them."""
    timed = [replace(labelled_copper(n, "ase 3.22"), seconds=1800.0) for n in (1, 2, 10)]
    rest = [labelled_copper(3), replace(labelled_copper(4), seconds=3600.0)]
    table = re.sub(" +", " ", summary(filled("a.jsonl", *timed, *rest)))
    assert "| ase 3.22 | 1 | label | 2 | 1 | 1.5 |" in table
    assert "| ase 3.25 | 1 | label | 2 | 0 | 1 for 1 |" in table


def test_times_are_no_part_of_a_label(filled):
    """Labels that took another time elsewhere are the same; a time is better than none."""
    without = labelled_copper(1)
    fast, slow = (replace(without, seconds=seconds) for seconds in (1.0, 2.0))
    into = filled("into.jsonl", without)
    merge(into, [filled("fast.jsonl", fast), filled("slow.jsonl", slow)])
    assert LabelStore(into)["h1"].seconds == 1.0


def test_only_the_most_frequent_reasons_are_listed(filled):
    records = [replace(failure(n), error=f"reason {min(n, 24)}") for n in range(30)]
    lines = summary(filled("a.jsonl", *records)).splitlines()
    assert "reason 24" in lines[-21]
    assert lines[-1] == "and 5 more reasons"


def test_merged_stores_hold_all_labels_once(filled):
    """Finished ones in place of failed ones, and with input where one store has it."""
    plain = replace(labelled_copper(5), input=None)
    into = filled("into.jsonl", record(1), failure(2), failure(3), plain)
    one = filled("one.jsonl", record(1), record(2), labelled_copper(5), failure(1))
    two = filled("two.jsonl", record(2), record(4), labelled_copper(10))
    before = one.read_bytes(), two.read_bytes()
    assert merge(into, [one, two]) == f"{into}: 6 records, 2 of them new"
    store = LabelStore(into)
    assert sorted(store) == ["h1", "h10", "h2", "h3", "h4", "h5"]
    assert all(same(store[f"h{n}"], record(n)) for n in (1, 2, 4))
    assert [key for key in store if store.failed(key)] == ["h3", "h10"]
    assert store["h5"].input.description == "copper 5"
    assert store["h10"].input.atoms == labelled_copper(10).input.atoms
    assert (one.read_bytes(), two.read_bytes()) == before
    again = into.read_bytes()
    assert merge(into, [one, two]).endswith("6 records, 0 of them new")
    assert into.read_bytes() == again


def test_merged_into_a_new_store(filled, tmp_path):
    one = filled("one.jsonl", record(1))
    merge(tmp_path / "new" / "store.jsonl", [one])
    assert (tmp_path / "new" / "store.jsonl").read_bytes() == one.read_bytes()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda labels: labels["forces"].__setitem__((1, 2), 7), "forces differs by "),
        (lambda labels: labels.update(forces=np.zeros((3, 3))), r"shapes \(2, 3\) and \(3, 3\)"),
        (lambda labels: labels.update(vbm=np.zeros(1)), "only one has vbm"),
    ],
)
def test_labels_that_differ_are_named_and_nothing_is_merged(filled, change, named):
    other = record(1)
    change(other.labels)
    into, one = filled("into.jsonl", record(0), record(1)), filled("one.jsonl", record(2), other)
    before = into.read_bytes()
    with pytest.raises(LabellingError, match=named) as error:
        merge(into, [one])
    assert f"in {into}, line 3 and {one}, line 3" in str(error.value)
    assert "labels of 1 keys differ, nothing was merged" in str(error.value)
    assert into.read_bytes() == before


def test_merge_that_fails_leaves_no_new_store(filled, tmp_path, full_disk):
    new, first = tmp_path / "new.jsonl", record(1)
    other = replace(first, labels={name: value + 1 for name, value in first.labels.items()})
    paths = filled("a", first), filled("b", other)
    with full_disk(100), pytest.raises(LabellingError, match=r"new\.jsonl.*make room"):
        merge(new, paths[:1])
    with pytest.raises(LabellingError, match="1 keys differ, nothing was merged"):
        merge(new, paths)
    assert not new.exists()


def test_rounding_of_another_machine_is_no_difference(filled):
    other = record(1)
    other.labels["forces"] *= 1 + 1e-9
    into = filled("into.jsonl", record(1))
    merge(into, [filled("one.jsonl", other)])
    assert same(LabelStore(into)["h1"], record(1))


def test_pruned_store_has_its_labels_and_no_failures(filled):
    path = filled("a.jsonl", *map(labelled_copper, range(21)), failure(31))
    text = prune(path)
    assert text.endswith("dropped 4 failed calculations and 0 finished labels, kept 18 records")
    store = LabelStore(path)
    assert not any(map(store.failed, store))
    assert all(same(store[f"h{n}"], labelled_copper(n)) for n in range(21) if n % 10)


def test_pruning_one_code(filled):
    old = [labelled_copper(n, "ase 3.22") for n in range(5)]
    path = filled("a.jsonl", *old, *map(labelled_copper, range(5, 12)), record(30), failure(31))
    before = path.read_bytes()
    with pytest.raises(LabellingError, match=r"no record of 'CP2K 9'.* ase 3.22, ase 3.25"):
        prune(path, code="CP2K 9")
    assert path.read_bytes() == before
    assert "dropped 1 failed calculations and 0 finished" in prune(path, code="ase 3.22")
    assert "dropped 0 failed calculations and 4 finished" in prune(path, "ase 3.22", finished=True)
    left = ["h10", "h11", "h30", "h31", *(f"h{n}" for n in range(5, 10))]
    assert sorted(LabelStore(path)) == sorted(left)


@pytest.mark.parametrize("run", [summary, prune, lambda path: merge("into.jsonl", [path])])
def test_no_store(run, tmp_path):
    with pytest.raises(LabellingError, match="no label store at /"):
        run("nowhere.jsonl")
    assert list(tmp_path.iterdir()) == []
