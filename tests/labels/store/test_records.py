"""Records of the label store, also those cut off, old or of several processes."""

import time
from pathlib import Path

import numpy as np
from ase import Atoms

import schnetpack_phonon
from schnetpack_phonon.labels.store import Input, LabelStore, Record
from tests.data.data_fixtures import failure, record, same
from tests.labels.store.store_fixtures import HEADER

SHIPPED = Path(schnetpack_phonon.__file__).parent / "datasets" / "antiperovskite_pbesol.jsonl"


def test_round_trip_is_bit_exact(store):
    extreme = np.array([0.1 + 0.2, -0.0, 5e-324, np.nextafter(1, 2), 1.8e308, 3.0])
    records = [Record("a", {"x": extreme, "y": extreme.reshape(1, 2, 3)}), Record("b", None, "why")]
    records.append(Record("c", records[0].labels, seconds=12.25))
    for item in records:
        store.add(item)
    again = LabelStore(store.path)
    assert [again[key].seconds for key in "abc"] == [None, None, 12.25]
    assert all(same(again[item.key], item) for item in records)


def test_cut_anywhere_in_the_last_record(store):
    """Whatever a crash leaves of it: earlier records stay, and the next writer repairs."""
    store.add(record(0))
    size = store.path.stat().st_size
    store.add(record(1))
    whole = store.path.read_bytes()
    for end in range(size, len(whole)):
        store.path.write_bytes(whole[:end])
        cut = LabelStore(store.path)
        assert "h1" not in cut
        assert same(cut["h0"], record(0))
        cut.add(record(2))
        again = LabelStore(store.path)
        assert len(again) == 2
        assert same(again["h2"], record(2))


def test_cut_anywhere_in_the_header(store):
    store.add(record(0))
    header = store.path.read_bytes().split(b"\n")[0]
    for end in range(len(header) + 1):
        store.path.write_bytes(header[:end])
        LabelStore(store.path).add(record(1))
        assert same(LabelStore(store.path)["h1"], record(1))


def test_input_is_kept_bit_by_bit(store):
    rng = np.random.default_rng(0)
    atoms = Atoms("Ag3SBr", rng.normal(size=(5, 3)), cell=rng.normal(size=(3, 3)), pbc=[1, 1, 0])
    given = Input("label", "a crystal", "CP2K 2023.1", {"kpoints": [2, 2, 2], "x": 0.1}, atoms)
    store.add(Record("a", record(0).labels, None, given))
    store.add(Record("b", None, "no convergence", given))
    again = LabelStore(store.path)
    assert again["a"].input == again["b"].input == given
    assert again["a"].input.atoms.positions.tobytes() == atoms.positions.tobytes()
    assert same(again["a"], record(0))
    assert again["b"].error == "no convergence"


def test_moments_of_an_input_are_kept(store):
    atoms = Atoms("Cr2", positions=np.eye(2, 3), magmoms=[1.5, -1.5], pbc=True)
    store.add(Record("h1", {"energy": np.ones(1)}, None, Input("label", "", "code", {}, atoms)))
    found = LabelStore(store.path)["h1"].input.atoms
    np.testing.assert_array_equal(found.get_initial_magnetic_moments(), [1.5, -1.5])
    assert found == atoms


def test_first_stores_stay_readable_and_go_on(tmp_path):
    """Lines without input, as the first in the data set that ships, and new ones behind them."""
    path = tmp_path / "labels.jsonl"
    path.write_bytes(SHIPPED.read_bytes())
    store = LabelStore(path)
    n = len(store)
    assert n == SHIPPED.read_bytes().count(b"\n") - 1 > 200
    assert all(store[key].labels for key in store)
    assert sum(store[key].input is None for key in store) > 200
    store.add(record(0))
    assert path.read_bytes().startswith(SHIPPED.read_bytes())
    assert len(LabelStore(path)) == n + 1


def test_finished_label_wins_over_a_failed_one(store, tmp_path):
    """In whatever order they come, in one file or two."""
    store.add(failure(0))
    store.add(record(0))
    store.add(failure(0))
    store.add(record(1))
    assert store.path.read_bytes().count(b"\n") == 4
    shipped = LabelStore(tmp_path / "shipped.jsonl")
    shipped.add(record(2))
    store.add(failure(2))
    again = LabelStore(store.path, shipped.path)
    assert [key for key in again if again.failed(key)] == []
    assert all(same(again[f"h{n}"], record(n)) for n in range(3))
    alone = LabelStore(store.path)
    assert alone.failed("h2")
    # As another program may have left them.
    lines = store.path.read_bytes().splitlines(keepends=True)
    store.path.write_bytes(b"".join([lines[0], lines[2], lines[1]]))
    assert same(LabelStore(store.path)["h0"], record(0))


TORN = HEADER + b'{"key":"torn","lab'


def append(folder: Path, me: int) -> None:
    """One record to each store, at the same moment as the other process."""
    deadline = time.monotonic() + 60
    for number in range(60):
        store = LabelStore(folder / f"{number}.jsonl")
        (folder / f"{number}.{me}").touch()
        while not (folder / f"{number}.{1 - me}").exists():
            assert time.monotonic() < deadline, "the other process is gone"
        store.add(record(2 * number + me))


def test_two_processes_append(tmp_path, pool):
    """Both make the file, or both repair it: no record is lost, none is torn."""
    for number in range(0, 60, 2):
        (tmp_path / f"{number}.jsonl").write_bytes(TORN)
    for future in [pool.submit(append, tmp_path, me) for me in (0, 1)]:
        future.result()
    for number in range(60):
        store = LabelStore(tmp_path / f"{number}.jsonl")
        assert len(store) == 2
        assert all(same(store[f"h{n}"], record(n)) for n in (2 * number, 2 * number + 1))


def append_all(path: Path, order: list[int]) -> list[int]:
    """Adds all of it; returns what was there on the way."""
    store = LabelStore(path)
    found = []
    for number in order:
        if f"h{number}" in store:
            found.append(number)
        store.add(record(number))
    assert all(same(store[f"h{number}"], record(number)) for number in order)
    return found


def test_two_processes_want_the_same_labels(tmp_path, pool):
    """Each sees what the other wrote, and no label is written twice."""
    path, numbers = tmp_path / "store.jsonl", list(range(400))
    orders = numbers, numbers[::-1]
    found = [pool.submit(append_all, path, order) for order in orders]
    assert any(future.result() for future in found)
    assert path.read_bytes().count(b"\n") == 1 + len(numbers) == 1 + len(LabelStore(path))
