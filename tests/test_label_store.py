"""The label store survives what happens to files."""

import time
from pathlib import Path

import numpy as np
import pytest

from schnetpack_phonon.label_store import LabellingError, LabelStore, Record
from tests.data_fixtures import record, same


def test_round_trip_is_bit_exact(store):
    extreme = np.array([0.1 + 0.2, -0.0, 5e-324, np.nextafter(1, 2), 1.8e308, 3.0])
    records = [Record("a", {"x": extreme, "y": extreme.reshape(1, 2, 3)}), Record("b", None, "why")]
    for item in records:
        store.add(item)
    again = LabelStore(store.path)
    assert len(again) == 2
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


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"energy": 1.0}\n', "no label store .line 1: no header"),
        (b"step,energy\n1,-3.5\n", "no label store .line 1"),
        (b"\x89PNG\r\n\x1a\n\x00\n", "no label store .line 1"),
        (b"[1, 2]\n", "no label store .line 1"),
        (HEADER.replace(b"1}", b"2}"), "has format version 2; .* reads 1"),
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


@pytest.mark.parametrize("content", [b'{"energy": 1.0}', b"notes", b"\x00\x01\x02"])
def test_foreign_file_of_one_line_is_left_alone(tmp_path, content):
    """Without a newline it looks like a cut-off header, but for its text."""
    path = tmp_path / "store.jsonl"
    path.write_bytes(content)
    with pytest.raises(LabellingError):
        LabelStore(path).add(record(0))
    assert path.read_bytes() == content


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
        assert len(LabelStore(store.path)) == 0
    store.add(record(0))
    assert len(LabelStore(store.path)) == 1


def test_store_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LabellingError, match="cannot write"):
        LabelStore(tmp_path / "file" / "store.jsonl").add(record(0))


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
