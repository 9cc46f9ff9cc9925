"""Numbers of labels, in words."""

from schnetpack_phonon.labels.monitor.tally import Tally, reasons


def test_reasons():
    assert reasons(["b", "a", "b", "c", "c", "c", "d"]) == ["3 x c", "2 x b", "1 x a"]


def test_tally_tells_all():
    tally = Tally(
        set("1234"), 1, n_computed=3, failed={"2": "E: no"}, seconds=90, worker_seconds=180
    )
    text = "4 calculations: 1 in the store, 3 computed in 0:01:30 "
    text += "(2 per minute; 0.05 worker-hours), 1 failed"
    assert str(tally) == f"{text}\n    1 x E: no"
    assert str(Tally({"1"}, 1)) == "1 calculations: 1 in the store, 0 failed"
    assert str(Tally(set("123"), 1)) == "3 calculations: 1 in the store, 0 failed, 2 not done"
