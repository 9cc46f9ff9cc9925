"""Tables of several processes are those of one; a folder holds all tables and figures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from schnetpack_phonon.attribution import results as report
from schnetpack_phonon.attribution.report import (
    Settings,
    compare,
    measure,
    merge_parts,
    write,
    write_part,
)
from schnetpack_phonon.common.errors import AttributionError
from schnetpack_phonon.data.reading import Structure
from schnetpack_phonon.models.heads import Intensive
from tests.models.model_fixtures import potential, thermal

STRUCTURES = [Structure(*thermal(seed), seed, "Ag3SBr") for seed in range(5)]
SETTINGS = Settings("band_gap", n_steps=8, n_subsets=4)


@pytest.fixture(scope="module")
def model():
    return potential(Intensive(16, "band_gap"))


@pytest.fixture(scope="module")
def tables(model):
    return measure(model, STRUCTURES, SETTINGS)


def test_parts_of_processes_are_joined_each_structure_once(model, tables, tmp_path):
    """Three processes, one of which repeats a structure as a padded sampler does."""
    parts = tmp_path / "parts"
    for rank, own in enumerate((STRUCTURES[::2], STRUCTURES[1::2], STRUCTURES[:1])):
        write_part(parts, rank, measure(model, own, SETTINGS))
    joined = merge_parts(parts, 3)
    assert not parts.exists()
    for name in ("bonds", "structures", "totals", "faithfulness"):
        one, other = (
            getattr(t, name).sort_values("index", kind="stable").reset_index(drop=True)
            for t in (tables, joined)
        )
        pd.testing.assert_frame_equal(one, other, atol=1e-6, rtol=1e-4)


def test_process_without_results_is_an_error(tables, tmp_path):
    write_part(tmp_path / "parts", 0, tables)
    with pytest.raises(FileNotFoundError):
        merge_parts(tmp_path / "parts", 2)


def test_folder_holds_tables_figures_and_verdict(model, tables, tmp_path):
    names = []
    save = lambda _, name: names.append(name)  # noqa: E731
    verdict = write(tmp_path, tables, STRUCTURES, model, SETTINGS, save)
    assert names == ["bond_shares", "bond_lengths", "bond_faithfulness", "bonds_3d"]
    names = [report.ATTRIBUTIONS, report.BONDS, report.SHARES, report.SHELLS, report.FAITHFULNESS]
    for name in [*names, report.EXTXYZ, report.DUMP_LOCAL, report.VERDICT]:
        assert (tmp_path / name).stat().st_size > 0
    shares = pd.read_csv(tmp_path / report.SHARES)
    assert {"structure", "model", "bond_type", "share", "low", "high", "unit"} <= set(shares)
    assert set(shares["model"]) == {"trained", "untrained"}
    assert set(pd.read_csv(tmp_path / report.BONDS)["unit"]) == {"eV"}
    rows = pd.read_csv(tmp_path / report.ATTRIBUTIONS)
    assert len(rows) == 10
    assert Path(tmp_path / report.VERDICT).read_text().splitlines() == verdict


def test_one_structure_has_no_shares_but_all_else(model, tmp_path):
    found, names = measure(model, STRUCTURES[:1], SETTINGS), []
    save = lambda _, name: names.append(name)  # noqa: E731
    verdict = write(tmp_path, found, STRUCTURES[:1], model, SETTINGS, save)
    assert names == ["bond_lengths", "bond_faithfulness", "bonds_3d"]
    assert any("at least 3" in line for line in verdict)


@pytest.mark.parametrize("method", ["IntegratedGradients", "Saliency"])
def test_masks_and_other_methods(model, tmp_path, method):
    settings = Settings("band_gap", "mask", method, n_steps=8)
    found = measure(model, [Structure(None, s.displaced, s.index) for s in STRUCTURES], settings)
    verdict = write(tmp_path, found, STRUCTURES, model, settings, lambda *_: None)
    assert any("far from all training data" in line for line in verdict)


def test_models_are_compared_on_the_same_bonds(model, tables):
    other = measure(potential(Intensive(16, "band_gap"), seed=5), STRUCTURES, SETTINGS)
    figure, r = compare({"one": tables, "same": tables}, STRUCTURES, SETTINGS)
    assert r == pytest.approx(1)
    assert compare({"one": tables, "other": other}, STRUCTURES, SETTINGS)[1] < 0.999
    assert [axis.get_title() for axis in figure.axes[:2]] == ["one", "same"]


def test_wrong_settings_are_reported_before_anything_is_computed(model):
    with pytest.raises(AttributionError, match="it has band_gap"):
        measure(model, STRUCTURES, Settings("gap"))
    with pytest.raises(AttributionError, match="expected displacement or mask"):
        measure(model, STRUCTURES, Settings("band_gap", kind="both"))
