"""The page about an ensemble says what the snapshots are like, and labels none of them."""

import logging

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from schnetpack_phonon.common import properties
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.preview import preview, write_preview
from schnetpack_phonon.ensembles.thermal import MatchedEnsemble, PhononEnsemble
from schnetpack_phonon.labels.finite_strain import FiniteStrain
from schnetpack_phonon.labels.store import LabelStore
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements
from schnetpack_phonon.phonons.harmonic import harmonic_model
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.data.data_fixtures import ALLOYS, ensemble_data


@pytest.fixture(scope="module")
def copper():
    crystal = Crystal("Cu", bulk("Cu", cubic=True), supercell_matrix((2, 2, 2)))

    def label(what, jobs):
        labels = []
        for _, atoms in jobs:
            atoms.calc = EMT()
            labels.append({properties.forces: atoms.get_forces()})
        return labels

    models = FiniteDisplacements(Instabilities()).models([crystal], [300.0], label)
    return [crystal], models


OPTIONS = {"n_snapshots": 400, "seed": 5}


def test_harmonic_energy_is_the_one_of_equipartition(copper):
    found = preview(PhononEnsemble([300], "classical", **OPTIONS), *copper).groups
    n = 32
    expected = (3 * n - 3) / n * 8.617333e-5 * 300 / 2 * 1e3  # meV per atom
    # 400 snapshots of 93 squares: one standard error is expected * sqrt(2 / 93 / 400).
    assert found["harmonic_energy"].item() == pytest.approx(expected, rel=5 * 0.0073)


def test_matched_displacements_are_as_large_and_dearer(copper):
    thermal = preview(PhononEnsemble([300], **OPTIONS), *copper)
    matched = preview(MatchedEnsemble([300], **OPTIONS), *copper)
    for found in (thermal, matched):
        row = found.displacements.iloc[0]
        assert row["rms"] == pytest.approx(row["theory"], rel=0.02)
    assert matched.displacements["rms"].item() == pytest.approx(
        thermal.displacements["rms"].item(), rel=0.02
    )
    assert matched.groups["harmonic_energy"].item() > 1.1 * thermal.groups["harmonic_energy"].item()


def test_random_displacements_have_the_textbook_size(copper):
    found = preview(RandomEnsemble([0.3], "uniform", **OPTIONS), *copper)
    row = found.displacements.iloc[0]
    assert row["theory"] == pytest.approx(0.3 / np.sqrt(3) * np.sqrt(31 / 32))
    assert row["rms"] == pytest.approx(row["theory"], rel=0.01)
    assert "harmonic_energy" not in found.groups  # without a harmonic model
    assert found.groups["ideal_distance"].item() == pytest.approx(3.61 / np.sqrt(2))
    assert found.groups["shortest_distance"].item() < 2.3


def test_rejected_snapshots_are_counted(copper):
    options = OPTIONS | {"n_snapshots": 50, "max_displacement": 0.42}
    found = preview(RandomEnsemble([0.3], "uniform", **options), *copper).groups
    assert found["n_rejected"].item() > 0
    assert found["largest_displacement"].item() <= 0.42


def test_bonds_scatter_about_the_ideal_ones(copper):
    found = preview(PhononEnsemble([300], **OPTIONS), *copper).distances
    assert len(found) == 400 * 32 * 12 / 2
    assert found["ideal"].unique() == pytest.approx([3.61 / np.sqrt(2)])
    assert found["distance"].mean() == pytest.approx(3.61 / np.sqrt(2), abs=0.02)


@pytest.mark.parametrize("kind", [PhononEnsemble, MatchedEnsemble])
def test_changed_modes_are_compared_with_harmonic_ones(copper, kind):
    """A guard of 6 THz halves the displacements; the page gives both, with phonopy's number."""
    crystals, models = copper
    harmonic = models["Cu", 300.0]
    ensemble = kind([300], **OPTIONS)
    expected = np.sqrt(ensemble.mean_square_displacements(harmonic, 300).mean())
    unchanged = preview(ensemble, *copper).displacements
    assert unchanged["theory"].item() == pytest.approx(expected)
    assert unchanged["harmonic"].isna().all()
    guarded = harmonic_model(
        harmonic.ideal, harmonic.force_constants, Instabilities("error", min_frequency=6.0)
    )
    models = {("Cu", 300.0): guarded}
    row = preview(ensemble, crystals, models).displacements.iloc[0]
    assert row["rms"] == pytest.approx(row["theory"], rel=0.02)
    assert row["harmonic"] == pytest.approx(expected)
    assert row["theory"] < 0.8 * expected


def test_ensemble_without_snapshots(copper):
    ensemble = RandomEnsemble([0.3], "uniform", **OPTIONS)
    ensemble.n_snapshots = 0  # as a mixture may set it
    with pytest.raises(ValueError, match="no group of the ensemble random has a snapshot"):
        preview(ensemble, *copper)


def test_tables_are_whole_or_not_there(copper, tmp_path, full_disk):
    with full_disk(50), pytest.raises(OSError, match=r"too large.*groups\.csv"):
        write_preview(tmp_path, PhononEnsemble([300], n_snapshots=2, seed=1), *copper, "")
    assert not list(tmp_path.iterdir())


def test_page_and_pictures(copper, tmp_path):
    ensemble = PhononEnsemble([300], n_snapshots=5, seed=1)
    text = write_preview(tmp_path / "preview", ensemble, *copper, "what it takes")
    row = next(line for line in text.splitlines() if line.startswith("| Cu"))
    assert [cell.strip() for cell in row.split("|")][2:6] == ["phonon", "300 K", "5", "0"]
    assert "\nLabels: what it takes.\n" in text
    for name in ("displacements", "distances", "bands_Cu"):
        assert f"]({name}.png)" in text
        assert (tmp_path / "preview" / f"{name}.png").stat().st_size > 5000
    groups = pd.read_csv(tmp_path / "preview" / "groups.csv")
    assert groups["n_snapshots"].tolist() == [5]


def test_dry_run_labels_no_snapshot(tmp_path, caplog):
    data = ensemble_data(tmp_path)
    with caplog.at_level(logging.INFO):
        text = data.preview()
    assert text.count("| phonon ") == 2 * len(ALLOYS)
    assert not (tmp_path / "data" / "test.db").exists()
    before = len(LabelStore(data.generation.label_store))
    n_snapshots = 4 * 2 * len(ALLOYS)
    assert f"Labels: {n_snapshots}, of which 0 are in the label store." in text
    data.prepare_data()
    assert len(LabelStore(data.generation.label_store)) == before + n_snapshots
    elastic = ensemble_data(tmp_path, elastic=FiniteStrain(relaxed_ions=True))
    assert (
        f"{n_snapshots} are in the label store; for elastic tensors 12 strained copies of each and "
        "as many relaxations."
    ) in elastic.preview()
