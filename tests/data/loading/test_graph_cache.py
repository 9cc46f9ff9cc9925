"""Graphs on the disk: found again if nothing has changed, and only then."""

import logging
import os
import shutil
import time
from pathlib import Path
from unittest.mock import patch

import ase.db
import numpy as np
import pytest
import torch
from schnetpack.data import ASEAtomsData
from schnetpack.transform import ASENeighborList, CastTo32, MatScipyNeighborList

from schnetpack_phonon.data.loading import graph_cache
from schnetpack_phonon.data.loading.graph_cache import open_graphs
from schnetpack_phonon.data.loading.graphs import INDEX, DifferentGraphsError
from tests.data.loading.loading_fixtures import assert_same, small_database, transforms

PLENTY = 2**30


@pytest.fixture
def path(tmp_path):
    return small_database(tmp_path / "a.db")


@pytest.fixture
def made(caplog):
    """How often graphs were made."""
    caplog.set_level(logging.INFO, logger=graph_cache.__name__)
    return lambda: sum("neighbour lists in" in message for message in caplog.messages)


def opened(path, cache, settings=None, n_workers=0, **kwargs):
    data = ASEAtomsData(str(path), **kwargs)
    return open_graphs(data, settings or transforms(), Path(cache), PLENTY, n_workers)[0]


def assert_as_the_host(graphs, path, settings=None, **kwargs):
    data = ASEAtomsData(str(path), transforms=settings or transforms(), **kwargs)
    assert len(graphs) == len(data)
    for k in range(len(data)):
        assert_same(graphs.item(k), data[k])


def test_graphs_are_made_once_also_if_the_database_is_moved(path, tmp_path, made):
    assert_as_the_host(opened(path, tmp_path / "cache"), path)
    moved = Path(shutil.move(path, tmp_path / "b.db"))
    os.utime(moved, (0, 0))
    assert_as_the_host(opened(moved, tmp_path / "cache"), moved)
    assert made() == 1


@pytest.mark.parametrize(
    "other",
    [
        {"settings": [MatScipyNeighborList(cutoff=5.0), CastTo32()]},
        {"settings": [ASENeighborList(cutoff=4.0), CastTo32()]},
        {"settings": [MatScipyNeighborList(cutoff=4.0)]},
        {"load_properties": ["energy"]},
        {"property_units": {"energy": "kcal/mol"}},
        {"distance_unit": "Bohr"},
    ],
)
def test_other_settings_are_made_anew(path, tmp_path, made, other):
    opened(path, tmp_path / "cache")
    assert_as_the_host(opened(path, tmp_path / "cache", **other), path, **other)
    assert_as_the_host(opened(path, tmp_path / "cache"), path)
    assert made() == 2


@pytest.mark.parametrize("change", ["an atom", "a label", "another database"])
def test_changed_database_is_made_anew(path, tmp_path, made, change):
    """Of the same size and with the time of the one before."""
    opened(path, tmp_path / "cache")
    before = path.stat()
    if change == "another database":
        path.unlink()
        small_database(path, seed=1)
    else:
        with ase.db.connect(path) as db:
            atoms = db.get_atoms(12)
            atoms.positions[0] += [0.01, 0, 0] if change == "an atom" else 0
            data = {"energy": np.array([7.0])} if change == "a label" else None
            db.update(12, atoms=atoms, data=data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert_as_the_host(opened(path, tmp_path / "cache"), path)
    assert made() == 2


def test_other_versions_are_made_anew(path, tmp_path, made):
    opened(path, tmp_path / "cache")
    with patch.object(graph_cache, "version", lambda name: "99"):
        opened(path, tmp_path / "cache")
    assert made() == 2


@pytest.mark.parametrize("harm", ["other content", "truncated", "no index", "empty", "left over"])
def test_damaged_graphs_are_made_again(path, tmp_path, made, caplog, harm):
    opened(path, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").glob("*[!k]")
    if harm == "other content":
        file = folder / "7.bin"
        file.write_bytes(bytes(reversed(file.read_bytes())))
    elif harm == "truncated":
        os.truncate(folder / "7.bin", 16)
    elif harm == "no index":
        (folder / INDEX).unlink()
    elif harm == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    else:
        folder.rename(folder.with_name(f".{folder.name}.part"))
    assert_as_the_host(opened(path, tmp_path / "cache"), path)
    assert made() == 2
    assert (harm == "left over") != ("made again" in caplog.text)
    assert not list((tmp_path / "cache").glob(".*.part"))


def test_worker_processes_make_the_same(path, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_cache, "_WORKERS_PAY", 1)
    monkeypatch.setattr(graph_cache, "_PART", 5)
    for n_workers in (0, 2):
        opened(path, tmp_path / f"{n_workers}", n_workers=n_workers)
    one, other = (sorted((tmp_path / name).glob("*/*")) for name in "02")
    assert [file.name for file in one] == [file.name for file in other]
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


def test_all_of_the_database_is_meant(path, tmp_path):
    subset = ASEAtomsData(str(path)).subset([3, 4])
    graphs, rest = open_graphs(subset, transforms(), tmp_path / "cache", PLENTY, 0)
    assert_as_the_host(graphs, path)
    assert rest == []
    assert subset.transforms == []


def opened_at_once(path, cache):
    """Waits until another process does the same; process, and what it says."""
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    graph_cache.log.addHandler(handler)
    graph_cache.log.setLevel(logging.INFO)
    path.with_suffix(f".{os.getpid()}").touch()
    while len(list(path.parent.glob("a.[0-9]*"))) < 2:
        time.sleep(0.001)
    opened(path, cache)
    graph_cache.log.removeHandler(handler)
    return os.getpid(), said


def test_two_processes_that_want_the_same_make_it_once(path, tmp_path, pool):
    both = [pool.submit(opened_at_once, path, tmp_path / "cache") for _ in "ab"]
    processes, said = zip(*(task.result() for task in both), strict=True)
    assert len({*processes}) == 2
    assert sum("neighbour lists in" in text for own in said for text in own) == 1


def test_order_of_training_does_not_depend_on_the_cache(path, tmp_path):
    drawn = []
    for _ in "ab":
        torch.manual_seed(3)
        opened(path, tmp_path / "cache")
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_structures_of_other_types_are_named_and_leave_nothing(path, tmp_path):
    with ase.db.connect(path) as db:
        db.update(12, data={"energy": np.array([[7.0]])})
    with pytest.raises(DifferentGraphsError, match=r"energy: .* and .*data.loading=null"):
        opened(path, tmp_path / "cache")
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".lock"]
