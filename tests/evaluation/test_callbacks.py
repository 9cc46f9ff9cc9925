"""Files of the callbacks after a test; they change neither metrics nor weights."""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import ase.db
import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import schnetpack as spk
import torch
from ase.units import Hartree
from schnetpack.data import AtomsDataModule
from schnetpack.transform import CastTo32, MatScipyNeighborList
from torch import nn
from torchmetrics.regression import MeanAbsoluteError

from schnetpack_phonon.common.errors import AttributionError
from schnetpack_phonon.data.reading import read_labels, read_rows
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.callbacks import (
    BondAttributionCallback,
    CPUThreads,
    ReportCallback,
)
from schnetpack_phonon.evaluation.run_report import read_report, summary
from schnetpack_phonon.models.heads import Energy, Intensive
from schnetpack_phonon.models.task import ScaledOutput, ScaledTask
from tests.data.data_fixtures import ensemble_data
from tests.models.model_fixtures import quiet_trainer

ENERGY, STRESS = "energy_per_atom", "hydrostatic_stress"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("callbacks")
    data(folder).prepare_data()
    return folder


def data(folder):
    ensemble = PhononEnsemble([100, 300], n_snapshots=8, seed=1)
    return ensemble_data(folder, ensemble, load_properties=[ENERGY, STRESS, "forces", "stress"])


def run(folder, callbacks, module=None, heads=None, keys=(ENERGY, STRESS)):
    """One epoch and a test; returns test metrics and weights."""
    pl.seed_everything(0)
    strain = [] if heads is None else [spk.atomistic.Strain()]
    representation = spk.representation.PaiNN(
        n_atom_basis=8,
        n_interactions=2,
        radial_basis=spk.nn.GaussianRBF(8, 4.0),
        cutoff_fn=spk.nn.CosineCutoff(4.0),
    )
    model = spk.model.NeuralNetworkPotential(
        representation,
        input_modules=[*strain, spk.atomistic.PairwiseDistances()],
        output_modules=heads or [Intensive(8, key) for key in keys],
        postprocessors=[],
    )
    outputs = [
        ScaledOutput(key, nn.MSELoss(), metrics={"mae": MeanAbsoluteError()}) for key in keys
    ]
    task = ScaledTask(model, outputs, optimizer_args={"lr": 1e-3})
    trainer = quiet_trainer(callbacks=callbacks)  # in inference mode, as is the default
    module = module or data(folder)
    trainer.fit(task, datamodule=module)
    (metrics,) = trainer.test(task, datamodule=module, verbose=False)
    return metrics, {name: value.clone() for name, value in task.model.state_dict().items()}


@pytest.fixture(scope="module")
def reported(folder):
    with pytest.MonkeyPatch.context() as patch:
        run_folder = folder / "run"
        run_folder.mkdir()
        patch.chdir(run_folder)
        callbacks = [BondAttributionCallback(ENERGY), ReportCallback("best_model", ENERGY)]
        with redirect_stdout(io.StringIO()) as said:
            found = run(folder, callbacks)
        (run_folder / "said").write_text(said.getvalue())
        return run_folder, *found


def test_summary(folder, reported, monkeypatch):
    """Errors as in the tables, and where all is, from the folder where the command was started."""
    run_folder = reported[0]
    table = pd.read_csv(run_folder / "metrics.csv", index_col="property")
    said = (run_folder / "said").read_text()
    mae, mean = table.loc[ENERGY, ["mae", "mae_crystal_mean"]]
    assert f"\n          energy per atom     {mae:.3g} meV ({mean:.3g})\n" in said
    assert "mean absolute, of 8 test structures" in said
    monkeypatch.setenv("PWD", str(folder))
    text = summary(run_folder, str(folder / "data" / "test.db"), 3700.0, 60.0)
    assert "\ntime      1:01:40, of which training 0:01:00\n" in text
    assert "\ndatabase  data/test.db\n" in text
    assert re.search(r"\nrun       run: report\.md, \d+ figures in figures\n", text)
    assert "\nnext      spkphonon report run\n" in text
    assert "spkphonon thermal run\n" in text


def test_callbacks_change_neither_metrics_nor_weights(folder, reported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metrics, weights = run(folder, [])
    assert metrics == reported[1]
    assert all(torch.equal(weights[name], value) for name, value in reported[2].items())


def test_errors_are_those_of_schnetpack_in_report_units(folder, reported):
    run_folder, metrics, _ = reported
    table = pd.read_csv(run_folder / "metrics.csv", index_col="property")
    assert table.loc[ENERGY, "mae"] == pytest.approx(1e3 * metrics[f"test_{ENERGY}_mae"], rel=1e-5)
    assert table.loc[STRESS, "mae"] == pytest.approx(
        160.21766 * metrics[f"test_{STRESS}_mae"], rel=1e-5
    )
    predictions = pd.read_csv(run_folder / "predictions.csv")
    own = predictions[predictions["property"] == ENERGY]
    assert (own["prediction"] - own["label"]).abs().mean() == pytest.approx(
        table.loc[ENERGY, "mae"]
    )
    assert set(predictions["index"]) == set(np.load(folder / "split.npz")["test_idx"])


def test_a_potential_is_reported_with_forces_and_stress(folder, tmp_path, monkeypatch):
    """Errors of components are those of SchNetPack, in report units, and so is the record."""
    monkeypatch.chdir(tmp_path)
    heads, keys = [Energy(8), spk.atomistic.Forces(calc_stress=True)], (ENERGY, "forces", "stress")
    metrics, _ = run(folder, [ReportCallback("best_model", ENERGY)], heads=heads, keys=keys)
    table = pd.read_csv("metrics.csv", index_col="property")
    assert list(table.index) == list(keys)
    for key, factor in (("forces", 1e3), ("stress", 160.21766)):
        assert table.loc[key, "mae"] == pytest.approx(factor * metrics[f"test_{key}_mae"], rel=1e-4)
    assert set(table["n"]) == {8}
    assert list(table["n_values"]) == [8, 8 * 40 * 3, 8 * 9]
    assert list(table["unit"]) == ["meV", "meV/Å", "GPa"]
    rows = [*read_rows(folder / "data" / "test.db")]
    train = np.concatenate(
        [rows[k].data["forces"] for k in np.load(folder / "split.npz")["train_idx"]]
    )
    test = np.concatenate(
        [rows[k].data["forces"] for k in np.load(folder / "split.npz")["test_idx"]]
    )
    assert table.loc["forces", "mae_mean"] == pytest.approx(
        1e3 * np.abs(test - train.mean(axis=0)).mean()
    )
    page = Path("report.md").read_text()
    assert "| forces (per component) | meV/Å |" in page
    assert json.loads(Path("run.json").read_text())["targets"] == {key: key for key in keys}


def test_attributions_are_complete_and_have_their_control(reported):
    table = pd.read_csv(reported[0] / "bond_attribution.csv")
    assert set(table["model"]) == {"trained", "untrained"}
    types = [name for name in table.columns if "-" in name]
    np.testing.assert_allclose(
        table[types].sum(axis=1) + table["residual"], table["change"], atol=1e-9
    )
    rounding = 1e-6 * table["value"].abs().max()
    assert (table["residual"].abs() < 0.01 * table["change"].abs().mean() + rounding).all()


def test_figures_and_page_are_there(reported):
    run_folder = reported[0]
    figures = {path.name for path in (run_folder / "figures").iterdir()}
    assert {"parity.png", f"{ENERGY}_distribution.png"} <= figures
    page = read_report(run_folder)
    assert "energy per atom" in page
    assert str(Path("data") / "test.db") in page


def test_threads_are_set_unless_the_user_set_them(monkeypatch):
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        CPUThreads(3).setup(None, None, "fit")
        assert torch.get_num_threads() == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        CPUThreads(3).setup(None, None, "fit")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_failed_attribution_does_not_cost_the_run(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    run(folder, [BondAttributionCallback("no_such_output"), ReportCallback("best_model", ENERGY)])
    assert (tmp_path / "metrics.csv").is_file()
    assert "no_such_output" in caplog.text


def foreign(folder, path):
    """Data of SchNetPack alone: in Hartree, without provenance, with pairs named as our columns."""
    units = {ENERGY: "Hartree", STRESS: "eV/Ang/Ang/Ang"}
    database = spk.data.ASEAtomsData.create(str(path), "Ang", units)
    found = [*read_rows(folder / "data" / "test.db")]
    labels = [{ENERGY: r.data[ENERGY] / Hartree, STRESS: r.data[STRESS]} for r in found]
    database.add_systems(labels, [row.atoms for row in found])
    with ase.db.connect(path) as db:
        db.update(1, label="a", prediction="b", kind="c")
    return AtomsDataModule(
        str(path),
        batch_size=4,
        num_train=16,
        num_val=8,
        num_test=8,
        num_workers=0,
        property_units={ENERGY: "eV"},
        transforms=[MatScipyNeighborList(cutoff=4.0), CastTo32()],
    )


def test_databases_of_schnetpack_alone_are_reported(folder, tmp_path):
    """Provenance and units of ours are not needed; energies were in Hartree."""
    module = foreign(folder, tmp_path / "foreign.db")
    metrics, _ = run(folder, [ReportCallback("best_model", ENERGY)], module)
    table = pd.read_csv("metrics.csv", index_col="property")
    assert table.loc[ENERGY, "mae"] == pytest.approx(1e3 * metrics[f"test_{ENERGY}_mae"], rel=1e-5)
    labels = read_labels(folder / "data" / "test.db")[ENERGY]
    train, test = (labels.iloc[index] for index in (module.train_idx, module.test_idx))
    assert table.loc[ENERGY, "mae_mean"] == pytest.approx(1e3 * (test - train.mean()).abs().mean())
    predictions = pd.read_csv("predictions.csv")
    assert set(predictions["structure"]) <= {"Cu3PdAu", "Cu3PtAu"}
    assert not (tmp_path / "figures" / f"{ENERGY}_distribution.png").exists()


def test_ideal_crystal_from_a_file_and_files_in_a_folder(folder, tmp_path):
    """Of rows that do not hold theirs, in a Trainer as Lightning makes it; in other images."""
    (row,) = read_rows(folder / "data" / "test.db", [0])
    row.ideal.positions[1] += row.ideal.cell.array[0]
    row.ideal.write("ideal.extxyz")
    module = foreign(folder, tmp_path / "foreign.db")
    module.test_idx, module.train_idx, module.val_idx = [0, 1], [*range(2, 10)], [10, 11]
    options = {"n_steps": 2, "control_seed": None, "max_structures": 1}
    bonds = BondAttributionCallback(ENERGY, ideal="ideal.extxyz", folder="out/bonds", **options)
    report = ReportCallback(distribution=ENERGY, folder="out/report")
    run(folder, [bonds, report], module)
    table = pd.read_csv("out/bonds/bond_attribution.csv")
    assert list(table["index"]) == [0]
    assert (table["change"].abs() > 0).all()
    assert Path("out/bonds/figures/bonds_3d.png").is_file()
    assert Path("out/report/report.md").is_file()
    assert not Path("figures").exists()


def test_ideal_crystal_is_read_before_training(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no structure file at .*ideal\.cif"):
        BondAttributionCallback(ENERGY, ideal="ideal.cif", work_dir=str(tmp_path))


def test_lengths_in_another_unit_are_refused_before_training():
    """Heads of this package refuse them, too; those of SchNetPack do not."""
    dataset = SimpleNamespace(distance_unit="Bohr")
    trainer = SimpleNamespace(datamodule=SimpleNamespace(dataset=dataset, datapath="x.db"))
    with pytest.raises(AttributionError, match=r"in Bohr.* set data\.distance_unit=Ang"):
        BondAttributionCallback(ENERGY).on_fit_start(trainer, None)
    dataset.distance_unit = "Angstrom"
    BondAttributionCallback(ENERGY).on_fit_start(trainer, None)


def test_outputs_that_are_no_known_numbers_have_no_report(folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("schnetpack_phonon.evaluation.callbacks.PROPERTIES", {})
    run(folder, [ReportCallback("best_model", ENERGY)])
    assert f"none of the labels of {ENERGY}, {STRESS}" in caplog.text
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.timeout(900)
def test_two_processes_report_each_test_structure_once(tmp_path):
    """SchNetPack's own command, with labels of the package."""
    done = subprocess.run(
        [
            Path(sys.executable).parent / "spktrain",
            "experiment=phonon_antiperovskite",
            "data.structure.names=[Ag3SBr]",
            "run.id=two",
            "trainer.max_epochs=1",
            "trainer.accelerator=cpu",
            "trainer.devices=2",
            "callbacks.bond_attribution.n_steps=1",
            "model.representation.n_atom_basis=8",
            "model.representation.n_interactions=1",
            "+trainer.strategy=ddp",
            "+trainer.enable_progress_bar=false",
        ],
        cwd=tmp_path,
        env=os.environ | {"PWD": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "two"
    expected = sorted(np.load(folder / "split.npz")["test_idx"])
    assert len(expected) > 2
    table = pd.read_csv(folder / "bond_attribution.csv")
    for _, own in table.groupby("model"):
        assert sorted(own["index"]) == expected
    bonds = pd.read_csv(folder / "bonds.csv")
    assert set(bonds["index"]) == set(expected)
    assert not bonds.duplicated(["index", "i", "j", "image_x", "image_y", "image_z"]).any()
    predictions = pd.read_csv(folder / "predictions.csv")
    for _, own in predictions.groupby("property"):
        assert sorted(own["index"]) == expected
