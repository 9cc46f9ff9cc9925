"""Band gaps as labels come in."""

import numpy as np

from schnetpack_phonon.labels.monitor.gaps import Gaps

HOT, COLD, OTHER = ("MgO", "temperature 600"), ("MgO", "temperature 100"), ("CaO", "amplitude 0.1")


def test_mean_and_spread_of_each_group():
    """The sample's standard deviation, sqrt(2) x 0.1 of two values 0.2 apart."""
    gaps = Gaps()
    found = [gaps.add(HOT, {"band_gap": np.array([value])}) for value in (1.1, 1.3)]
    assert found[0] == "gap of MgO, temperature 600: 1.10 eV (1)"
    assert found[1] == "gap of MgO, temperature 600: 1.20 ± 0.14 eV (2)"
    gaps.add(COLD, {"band_gap": np.array([1.5])})
    gaps.add(OTHER, {"band_gap": np.array([2.0])})
    assert gaps.lines() == [
        "gap of MgO: 1.20 ± 0.14 eV (2) at temperature 600; 1.50 eV (1) at temperature 100",
        "gap of CaO: 2.00 eV (1) at amplitude 0.1",
    ]


def test_labels_without_a_gap_are_not_counted():
    gaps = Gaps()
    for group, labels in ((HOT, None), (HOT, {"energy": np.zeros(1)}), (None, {"band_gap": 1})):
        assert gaps.add(group, labels) == ""
    assert gaps.lines() == []


def test_many_crystals_are_not_listed():
    gaps = Gaps()
    for number in range(30):
        gaps.add((f"alloy {number}", "temperature 300"), {"band_gap": np.ones(1)})
    lines = gaps.lines()
    assert len(lines) == 9
    assert lines[-1] == "gaps of 22 more crystals: in the database"
