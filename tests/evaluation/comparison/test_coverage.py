"""What data sets cover, against closed forms."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk

from schnetpack_phonon.ensembles.active.distance import far
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.comparison.coverage import (
    coverage_section,
    distances_and_errors,
    label_distributions,
    mode_amplitudes,
    pair_densities,
    rank_correlations,
)
from schnetpack_phonon.evaluation.comparison.cross_tests import cross_test
from schnetpack_phonon.evaluation.runs import Run, find_runs
from schnetpack_phonon.evaluation.test_sets import TestSet
from tests.evaluation.comparison.comparison_fixtures import databases, write_run


def data_set(atoms, name="phonon", **labels):
    rows = pd.DataFrame(
        {
            "structure": [a.get_chemical_formula("metal", empirical=True) for a in atoms],
            "group": name,
            "parameter": 300.0,
            "parent": None,
            "digest": [f"{name}{k}" for k in range(len(atoms))],
        }
    )
    return TestSet(Path(name), name, tuple(atoms), rows, pd.DataFrame(labels), {}, {}, None)


def test_densities_count_neighbours():
    copper = bulk("Cu", "fcc", a=3.6, cubic=True)
    found = pair_densities([data_set([copper, copper])], "Cu")
    near = (found["distance"] - 3.6 / np.sqrt(2)).abs() < 0.1
    assert found.loc[near, "density"].sum() * 0.05 == pytest.approx(12)


@pytest.mark.parametrize("temperature", [100.0, 300.0])
def test_amplitudes_of_a_thermal_ensemble(model, rock_salt, temperature):
    """Those of the temperature itself are 1; of a higher one larger, as sigma says."""
    drawn = PhononEnsemble([300.0], n_snapshots=400, seed=1)
    stream = drawn.snapshots(rock_salt, model, 300.0)
    atoms = [next(stream).atoms for _ in range(400)]
    found = mode_amplitudes([data_set(atoms)], "NaCl", model, temperature)
    expected = model.mode_amplitudes(300.0) / model.mode_amplitudes(temperature)
    ratio = found["amplitude"].to_numpy() / expected
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert np.abs(ratio - 1).max() < 0.2
    np.testing.assert_array_equal(found["frequency"], model.frequencies)


def test_other_cells_have_no_amplitudes(model):
    copper = bulk("Cu", "fcc", a=3.6, cubic=True)
    assert mode_amplitudes([data_set([copper])], "Cu", model, 300).empty
    assert mode_amplitudes([data_set([copper])], "Cu", None, 300).empty


def test_missing_labels_are_left_out():
    copper = [bulk("Cu")] * 3
    found = label_distributions(
        [data_set(copper, band_gap=[1.0, np.nan, 2.0]), data_set(copper, "bare")], "band_gap"
    )
    assert list(found["label"]) == [1.0, 2.0]


def test_each_component_of_a_tensor_is_a_label():
    stress = [np.arange(9.0).reshape(1, 9), np.nan]
    found = label_distributions([data_set([bulk("Cu")] * 2, stress=stress)], "stress")
    assert list(found["label"]) == list(range(9))
    assert set(found["structure"]) == {"Cu"}


def test_distance_orders_errors_that_grow_with_it():
    def copper(sigma, seed):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(2)
        atoms.rattle(sigma, seed=seed)
        return atoms

    sigmas = np.linspace(0.1, 0.4, 10)
    own = data_set([copper(0.1, k) for k in range(20)], "train")
    tested = data_set([copper(s, 100 + k) for k, s in enumerate(sigmas)], "test")
    index = np.arange(20)
    run = Run(Path("/run"), own.path, Path("/run/m"), {}, index, index[:0], index[:0], {})
    errors = pd.DataFrame(
        {
            "run": "/run",
            "property": "band_gap",
            "test_set": "test",
            "group": "test",
            "structure": "Cu",
            "digest": tested.rows["digest"],
            "mae": sigmas,
        }
    )
    table = distances_and_errors(
        {"model": run}, {"test": tested}, {"model": own}, errors, "band_gap"
    )
    np.testing.assert_allclose(table["error"], sigmas)
    (row,) = rank_correlations(table).to_dict("records")
    assert row["rank_correlation"] > 0.6
    assert row["mean distance of test"] > 1.5
    assert row["n"] == 10


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
    warnings = [line for line in section.paragraphs if line.startswith("Far outside")]
    assert len(warnings) == 4  # two models, two test sets
    start = "Far outside: random (one-sided) for models trained on phonon, N = 8: "
    assert any(line.startswith(f"{start}{distance:.1f} times as far") for line in warnings)
    assert -1 <= row["rank_correlation"] <= 1
    assert float(table.rows["rank_correlation"].iloc[0]) == pytest.approx(
        row["rank_correlation"], abs=0.01
    )
