"""EnsembleData as the host's data module."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import open_dict

from schnetpack_phonon import properties
from schnetpack_phonon.database import read_labels, read_metadata, read_provenance
from tests.data_fixtures import ensemble_data


def test_host_loads_batches_and_split_survives_a_restart(built, tmp_path):
    split = tmp_path / "split.npz"
    first, second = (
        ensemble_data(Path(built.datapath).parents[1], split_file=str(split)) for _ in "ab"
    )
    for data in (first, second):
        data.setup()
    batch = next(iter(first.test_dataloader()))
    assert batch[properties.stress].shape == (2, 3, 3)
    assert batch[properties.hydrostatic_stress].shape == (2,)
    assert batch[properties.forces].shape == (80, 3)
    assert (first.train_idx, first.val_idx, first.test_idx) == (
        second.train_idx,
        second.val_idx,
        second.test_idx,
    )
    assert sorted(first.train_idx + first.val_idx + first.test_idx) == list(range(16))


def test_split_of_another_database_is_refused(built, tmp_path):
    split = tmp_path / "split.npz"
    np.savez(split, train_idx=range(90), val_idx=range(5), test_idx=range(5))
    data = ensemble_data(Path(built.datapath).parents[1], split_file=str(split))
    with pytest.raises(ValueError, match="100 structures, the database has 16"):
        data.setup()


def test_shipped_pbesol_labels_make_their_database_without_cp2k(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()  # SchNetPack looks there, and Hydra warns where it is missing
    monkeypatch.setenv("PWD", str(tmp_path))
    overrides = [
        "experiment=phonon_antiperovskite_dft",
        "data.calculator.command=no-such-cp2k",
        f"data.datapath={tmp_path}/pbesol.db",
        f"data.label_store={tmp_path}/labels.jsonl",
    ]
    with initialize_config_module("schnetpack.configs", version_base="1.2"):
        config = compose("train", overrides).data
    with open_dict(config):
        for key in ("splitting", "transforms"):
            del config[key]  # they refer to the experiment around them
    data = instantiate(config)
    data.prepare_data()
    metadata = read_metadata(data.datapath)
    assert metadata["n_rows"] == 160
    assert metadata["versions"]["calculator"] == "CP2K 2023.1"
    assert not (tmp_path / "labels.jsonl").exists()  # nothing was computed
    labels = read_labels(data.datapath)
    assert (labels[properties.band_gap] <= labels[properties.band_gap_gamma]).all()
    assert (read_provenance(data.datapath)["n_imaginary"] > 50).all()
