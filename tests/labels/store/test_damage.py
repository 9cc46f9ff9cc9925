"""The label store survives what happens to files and disks."""

import pytest

from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.labels.store import LabelStore
from tests.data.data_fixtures import failure, record, same
from tests.labels.store.store_fixtures import HEADER


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
