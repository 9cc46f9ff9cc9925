"""Graphs as flat arrays against SchNetPack's own collate function."""

import json

import numpy as np
import pytest
import torch
from schnetpack import properties as host
from schnetpack.data import ASEAtomsData
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.transform import CastTo32, CollectAtomTriples, MatScipyNeighborList

from schnetpack_phonon.data.loading.graphs import (
    INDEX,
    DamagedGraphsError,
    DifferentGraphsError,
    Graphs,
    pack,
    write,
)
from tests.data.loading.loading_fixtures import (
    assert_same,
    displaced,
    fake_database,
    small_database,
)

BUDGETS = {"in memory": 2**30, "edges are read": 6000, "read": 0}


def items(path, *more):
    data = ASEAtomsData(str(path))
    data.transforms = [MatScipyNeighborList(cutoff=4.0), *more]
    return [data[k] for k in range(len(data))]


@pytest.fixture(params=BUDGETS)
def budget(request):
    return BUDGETS[request.param]


@pytest.mark.parametrize("kind", ["of all sizes", "of one size", "triples"])
def test_batches_are_those_of_the_host(tmp_path, kind, budget):
    if kind == "of all sizes":
        structures = items(small_database(tmp_path / "a.db"), CastTo32())
    elif kind == "of one size":
        database = fake_database(tmp_path / "a.db", displaced(6, (1, 1, 1)))
        structures = items(database, CastTo32())
    else:
        database = fake_database(tmp_path / "a.db", displaced(4, (1, 1, 1), (2, 1, 1)))
        structures = items(database, CollectAtomTriples())
    write(tmp_path, [pack(structures[:2]), pack(structures[2:])])
    graphs = Graphs.load(tmp_path, budget)
    assert graphs.in_memory == (budget == BUDGETS["in memory"])
    assert sum(c.n_bytes for c in graphs.columns if c.values is not None) <= budget
    assert any(c.values is not None for c in graphs.columns) == (budget > 0)
    for chosen in ([1], [3, 0, 2], list(range(len(structures))), [2, 2]):
        assert_same(graphs.batch(chosen), _atoms_collate_fn([structures[k] for k in chosen]))
    for k, structure in enumerate(structures):
        assert_same(graphs.item(k), structure)


def test_structures_without_any_neighbours(tmp_path, budget):
    structures = [
        item for item in items(small_database(tmp_path / "a.db")) if not len(item["_idx_i"])
    ]
    write(tmp_path, [pack(structures * 2)])
    assert_same(Graphs.load(tmp_path, budget).batch([0, 1]), _atoms_collate_fn(structures * 2))


def test_what_is_changed_in_a_batch_does_not_come_back(tmp_path, budget):
    structures = items(small_database(tmp_path / "a.db"))
    write(tmp_path, [pack(structures)])
    graphs = Graphs.load(tmp_path, budget)
    for value in [*graphs.batch([0, 1]).values(), *graphs.item(0).values()]:
        value.zero_()
    assert_same(graphs.item(0), structures[0])
    assert_same(Graphs.load(tmp_path, budget).item(0), structures[0])


def test_missing_labels_keep_their_bits(tmp_path):
    item = {host.n_atoms: torch.tensor([1]), "label": torch.tensor([float("nan")])}
    write(tmp_path, [pack([item])])
    assert Graphs.load(tmp_path, 0).batch([0])["label"].isnan().all()


@pytest.mark.parametrize(
    "other",
    [
        {"x": torch.zeros(1, 3)},
        {"x": torch.zeros(1, dtype=torch.float64)},
        {"x": torch.zeros(1), "y": torch.zeros(1)},
        {"x": torch.tensor([2**31])},
    ],
)
def test_structures_that_cannot_be_put_together_are_refused(tmp_path, other):
    first = {"x": torch.tensor([1])} if other["x"].dtype == torch.int64 else {"x": torch.zeros(1)}
    with pytest.raises(DifferentGraphsError):
        write(tmp_path, [pack([first]), pack([other])])
    if other["x"].dtype != torch.int64:
        with pytest.raises(DifferentGraphsError, match=" and "):
            pack([first, other])


@pytest.mark.parametrize("harm", ["no index", "cut off", "no file", "nonsense", "other rows"])
def test_damage_is_named(tmp_path, harm):
    write(tmp_path, [pack([{"x": torch.arange(6)}])])
    if harm == "no index":
        (tmp_path / INDEX).unlink()
    elif harm == "cut off":
        with open(tmp_path / "0.bin", "r+b") as file:
            file.truncate(8)
    elif harm == "no file":
        (tmp_path / "0.bin").unlink()
    elif harm == "nonsense":
        (tmp_path / INDEX).write_text("{")
    else:
        np.save(tmp_path / "bounds.npy", [[0, 6], [0, 6]])
    with pytest.raises(DamagedGraphsError, match=str(tmp_path)):
        Graphs.load(tmp_path, 0)


def test_a_file_that_is_cut_off_later_is_named(tmp_path):
    write(tmp_path, [pack([{"x": torch.arange(6)}] * 2)])
    graphs = Graphs.load(tmp_path, 0)
    with open(tmp_path / "0.bin", "r+b") as file:
        file.truncate(30)
    with pytest.raises(DamagedGraphsError, match="truncated"):
        graphs.batch([1])


def test_integers_take_half_the_place(tmp_path):
    write(tmp_path, [pack([{"x": torch.arange(6)}])])
    assert json.loads((tmp_path / INDEX).read_text())[0]["stored"] == "int32"
    assert Graphs.load(tmp_path, 0).n_bytes == 24
