"""The label store survives what happens to files."""

import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

import schnetpack_phonon
from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.labels.store import Input, LabelStore, Record
from tests.data.data_fixtures import failure, record, same

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


HEADER = b'{"format":"schnetpack_phonon labels","version":1}\n'
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


def test_store_that_another_process_replaces(store):
    """What was seen can still be read, and what is new goes to the new file."""
    store.add(record(0))
    store.add(failure(1))
    other = LabelStore(store.path)
    other.rewrite(lambda: [other.line("h0")])
    store.add(record(2))
    assert store.failed("h1")
    assert same(store["h0"], record(0))
    again = LabelStore(store.path)
    assert sorted(again) == ["h0", "h2"]
    assert same(again["h2"], record(2))
    again.rewrite(lambda: map(again.line, again))
    store.rewrite(lambda: map(store.line, store))
    assert sorted(LabelStore(store.path)) == sorted(store) == ["h0", "h2"]
    store.path.unlink()
    store.add(record(3))
    assert len(store) == 3
    assert list(LabelStore(store.path)) == ["h3"]


def test_rewriting_changes_all_or_nothing(store, full_disk):
    for number in range(20):
        store.add(record(number))
    store.path.chmod(0o664)
    before = store.path.read_bytes()

    def interrupted():
        yield store.line("h3")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.rewrite(interrupted)
    with full_disk(1000), pytest.raises(LabellingError, match=r"20 finished .*make room"):
        store.rewrite(lambda: map(store.line, store))
    assert store.path.read_bytes() == before
    assert {p.name for p in store.path.parent.iterdir()} == {"store.jsonl", "store.jsonl.lock"}
    store.rewrite(lambda: [store.line("h3")])
    assert same(LabelStore(store.path)["h3"], record(3))
    assert store.path.stat().st_mode & 0o777 == 0o664


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"energy": 1.0}\n', "no label store .line 1: no header"),
        # Without a newline these look like a header that was cut off, but for their text.
        (b'{"energy": 1.0}', "no label store .line 1: no header"),
        (b"notes", "no label store .line 1: no header"),
        (b"\x00\x01\x02", "no label store .line 1: no header"),
        (b"step,energy\n1,-3.5\n", "no label store .line 1"),
        (b"\x89PNG\r\n\x1a\n\x00\n", "no label store .line 1"),
        (b"[1, 2]\n", "no label store .line 1"),
        (HEADER.replace(b"1}", b"2}"), "has format version 2; .* reads 1: install"),
        (HEADER + b'{"key":"a","la\x00\n' + b'{"key":"b","labels":null,"error":"x"}\n', "line 2"),
        (HEADER + b'{"key":"a","labels":{"x":[1.0]}}\n', "line 2: 'error'"),
        (HEADER + b"\n", "line 2"),
    ],
)
def test_foreign_or_damaged_store(tmp_path, content, named):
    path = tmp_path / "store.jsonl"
    path.write_bytes(content)
    with pytest.raises(LabellingError, match=named):
        LabelStore(path)
    assert path.read_bytes() == content


def test_damage_within_a_line_is_found_when_it_is_read(store):
    for number in range(3):
        store.add(record(number))
    store.path.write_bytes(store.path.read_bytes().replace(b'"forces":[[', b'"forces":[,', 2))
    damaged = LabelStore(store.path)
    with pytest.raises(LabellingError, match=r"damaged .*line 3: .*delete that line"):
        damaged["h1"]
    assert same(damaged["h2"], record(2))


@pytest.mark.parametrize("room", [0, 1, 50, 150])
def test_full_disk(store, full_disk, room):
    """Whether the disk takes none or some of the bytes: an error, and nothing else is lost."""
    store.add(record(0))
    before = store.path.read_bytes()
    assert len(before) > 150
    for _ in range(2):
        with (
            full_disk(len(before) + room),
            pytest.raises(LabellingError, match="1 finished labels"),
        ):
            store.add(record(1))
        assert "h1" not in store
        assert store.path.read_bytes() == before
    store.add(record(1))
    assert same(LabelStore(store.path)["h1"], record(1))


def test_full_disk_before_the_first_record(store, full_disk):
    for room in (0, 10, 60):
        with full_disk(room), pytest.raises(LabellingError, match="make room"):
            store.add(record(0))
        assert not store.path.exists()
    store.add(record(0))
    assert len(LabelStore(store.path)) == 1


def test_store_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LabellingError, match=r"cannot read .*Not a directory"):
        LabelStore(tmp_path / "file" / "store.jsonl")
    with pytest.raises(LabellingError, match=r"cannot read .*Is a directory; expected a file"):
        LabelStore(tmp_path)
    with pytest.raises(LabellingError, match=r"cannot write .*set data\.label_store to a "):
        LabelStore("/proc/store.jsonl").add(record(0))


def test_folder_that_cannot_be_written(read_only):
    """It can be read; writing is refused before anything is computed."""
    path, new = read_only.folder / "store.jsonl", read_only.folder / "new.jsonl"
    LabelStore(path).add(record(0))
    content = path.read_bytes()
    with read_only():
        store = LabelStore(path)
        assert same(store["h0"], record(0))
        for write in (store.prepare, lambda: store.add(record(1)), LabelStore(new).prepare):
            with pytest.raises(LabellingError, match=r"cannot write .*Permission .*label_store"):
                write()
    assert path.read_bytes() == content
    path.chmod(0o200)
    with read_only(), pytest.raises(LabellingError, match=r"cannot read .*Permission denied"):
        LabelStore(path)


def test_file_system_without_locks(store, no_locks):
    with pytest.raises(LabellingError, match=r"No locks available.* set data.label_store to .*loc"):
        store.add(record(0))
    assert not store.path.exists()


def test_shipped_labels_are_read_and_never_written(tmp_path):
    shipped = LabelStore(tmp_path / "shipped.jsonl")
    shipped.add(record(1))
    content = shipped.path.read_bytes()
    store = LabelStore(tmp_path / "own.jsonl", shipped=shipped.path)
    assert same(store[record(1).key], record(1))
    store.add(record(2))
    assert shipped.path.read_bytes() == content
    assert len(LabelStore(tmp_path / "own.jsonl")) == 1
    assert len(LabelStore(tmp_path / "own.jsonl", shipped=shipped.path)) == 2
