"""The part about coverage, from runs that were tested."""

from functools import partial

import pytest

from schnetpack_phonon.evaluation.comparison.coverage import coverage_section
from schnetpack_phonon.evaluation.comparison.cross_tests import cross_test
from schnetpack_phonon.evaluation.distance import far
from schnetpack_phonon.evaluation.runs import find_runs
from tests.evaluation.comparison.comparison_fixtures import databases, write_run


def test_runs_without_phonons_have_the_rest(tmp_path, monkeypatch):
    """What counts as far is that of test_distance.py; here all does."""
    monkeypatch.setattr(
        "schnetpack_phonon.evaluation.comparison.coverage.far", partial(far, threshold=0.0)
    )
    for name, path in databases(tmp_path).items():
        write_run(tmp_path / "runs" / name, path, 1, range(1, 9), [9])
    section = coverage_section(cross_test(find_runs([tmp_path / "runs"])))
    picture, table = section.items
    assert set(picture.data["model"]) == {"phonon, N = 8", "random (one-sided), N = 8"}
    assert set(picture.data["property"]) == {"energy_per_atom"}
    row = table.data.set_index("model").loc["phonon, N = 8"]
    assert row["mean distance of phonon"] < row["mean distance of random (one-sided)"]
    distance = row["mean distance of random (one-sided)"]
    told = [line for line in section.paragraphs if line.startswith("Far outside")]
    assert len(told) == 4  # two models, two test sets
    assert any(
        line.startswith(
            f"Far outside: random (one-sided) for models trained on phonon, N = 8: "
            f"{distance:.1f} times as far from the training structures"
        )
        for line in told
    )
    assert -1 <= row["rank_correlation"] <= 1
    assert float(table.rows["rank_correlation"].iloc[0]) == pytest.approx(
        row["rank_correlation"], abs=0.01
    )
