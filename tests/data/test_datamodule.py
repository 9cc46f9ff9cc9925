"""EnsembleData as SchNetPack's data module."""

import re
from pathlib import Path

import numpy as np
import pytest
from ase.units import GPa
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning import Trainer
from schnetpack.data import RandomSplit

from schnetpack_phonon._hydra import config_folder
from schnetpack_phonon.common import properties
from schnetpack_phonon.data.generation import Generation
from schnetpack_phonon.data.loading.loaders import GraphLoading
from schnetpack_phonon.data.splits import ParentSplit
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.labels.finite_strain import FiniteStrain
from schnetpack_phonon.structures.crystals import Antiperovskites
from tests.data.data_fixtures import ensemble_data


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


def test_host_loads_elastic_tensors_in_any_unit(tmp_path):
    """Chosen in Hydra's way; one a structure along the first axis of a batch."""
    config = OmegaConf.load(config_folder() / "data/elastic/finite_strain.yaml")
    ensemble = RandomEnsemble([0.05], n_snapshots=2, seed=1)
    keys = [properties.elastic_tensor, properties.stress]
    batches = []
    for unit in ("GPa", "eV/Ang/Ang/Ang"):
        data = ensemble_data(
            tmp_path,
            ensemble,
            elastic=instantiate(config),
            load_properties=keys,
            property_units={properties.elastic_tensor: unit},
        )
        data.prepare_data()
        data.setup()
        batches.append(next(iter(data.train_dataloader()))[properties.elastic_tensor])
    assert batches[0].shape == (2, 6, 6)
    assert 100 < batches[0][:, 0, 0].min() < batches[0][:, 0, 0].max() < 250  # GPa
    np.testing.assert_allclose(batches[0].mean(), batches[1].mean() / GPa, rtol=1e-5)


def test_relative_paths_and_names_of_crystals(tmp_path):
    """SchNetPack works in the folder of the run."""
    loading = GraphLoading("graphs", n_workers=0)
    places = {"datapath": "data/{crystals}_x.db", "label_store": "labels.jsonl"}
    data = ensemble_data(tmp_path, work_dir=str(tmp_path / "here"), loading=loading, **places)
    assert data.datapath == str(tmp_path / "here" / "data" / "Cu3PdAu-Cu3PtAu_x.db")
    assert data.generation.datapath == Path(data.datapath)
    assert data.generation.label_store == tmp_path / "here" / "labels.jsonl"
    assert loading.cache == tmp_path / "here" / "graphs"


def test_names_of_many_crystals_are_cut(tmp_path):
    names = ["Cu3PdAu", "Cu3PtAu", "Ag3PdAu", "Ag3PtAu", "Cu3AgAu"]
    for n, name in ((4, "-".join(names[:4])), (5, "Cu3PdAu-Cu3PtAu-Ag3PdAu-and-2-more")):
        crystals = Antiperovskites(names[:n], lattice_constants=dict.fromkeys(names, 4.0))
        data = ensemble_data(tmp_path, structure=crystals, datapath="{crystals}.db")
        assert data.datapath == f"{name}.db"


@pytest.mark.parametrize("elastic", [None, FiniteStrain()])
def test_labels_that_nothing_gives_are_missed_before_any_is_computed(tmp_path, elastic):
    keys = [properties.energy, properties.vbm, properties.elastic_tensor, "ideal_positions"]
    data = ensemble_data(tmp_path, load_properties=keys, elastic=elastic)
    data.trainer = Trainer(logger=False)
    missing = "vbm" if elastic else "vbm, elastic_tensor"
    with pytest.raises(ValueError, match=rf"asks for {missing}; the labels will be energy, "):
        data.prepare_data()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((10, 4, 4), r"cannot split 16 structures into \[10, 4, 4\]"),
        ((0.9, 0.01, 0.09), r"data\.num_val=0\.01 of 16 structures is none; expected at least one"),
        ((8, 2, 1), r"no parent fits in a partition of 1 structures; there are 16 .* of 8 parents"),
        ((1.5, 2, 2), r"a partition of 1\.5 structures"),
    ],
)
def test_sizes_that_cannot_be_split_are_told_before_labels_are_computed(
    tmp_path, sizes, message, caplog, monkeypatch
):
    ensemble = PhononEnsemble([100, 300], n_snapshots=4, seed=1, draws="antithetic")
    numbers = dict(zip(("num_train", "num_val", "num_test"), sizes, strict=True))
    data = ensemble_data(tmp_path, ensemble, **numbers)
    monkeypatch.setattr(Generation, "preview", lambda _: "the preview")
    assert data.preview() == "the preview"
    assert "no model can be trained with these options: " in caplog.text
    assert re.search(message, caplog.text)
    data.trainer = Trainer(logger=False)
    with pytest.raises(ValueError, match=message):
        data.prepare_data()
    assert not (tmp_path / "data").exists()


def test_a_split_that_is_there_needs_no_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(Generation, "ensure", lambda _: None)
    (tmp_path / "split.npz").touch()
    data = ensemble_data(tmp_path, num_train=1000)
    data.trainer = Trainer(logger=False)
    data.prepare_data()


def test_gaps_of_each_spin_that_no_structure_has(built, monkeypatch):
    """Known only when there are labels, since moments may vanish."""
    for method in ("ensure", "missing_labels"):
        monkeypatch.setattr(Generation, method, lambda *_: None)
    data = ensemble_data(Path(built.datapath).parents[1], load_properties=["band_gap_spin"])
    data.trainer = Trainer(logger=False)
    with pytest.raises(ValueError, match=r"asks for band_gap_spin, which no structure in .*\.db"):
        data.prepare_data()


def test_split_of_another_database_is_refused(built, tmp_path):
    split = tmp_path / "split.npz"
    np.savez(split, train_idx=range(90), val_idx=range(5), test_idx=range(5))
    data = ensemble_data(Path(built.datapath).parents[1], split_file=str(split))
    with pytest.raises(ValueError, match="100 structures, the database has 16"):
        data.setup()


def test_sizes_are_shares_or_numbers_and_few_are_told(built, tmp_path, caplog):
    """1.0 is all and 1 is one, also for SchNetPack's own split, which takes both for one."""
    folder = Path(built.datapath).parents[1]
    for splitting in (ParentSplit(seed=0), RandomSplit()):
        options = {"splitting": splitting, "split_file": None}
        half = ensemble_data(folder, num_train=0.5, num_val=4, num_test=0.25, **options)
        half.setup()
        assert [len(x) for x in (half.train_idx, half.val_idx, half.test_idx)] == [8, 4, 4]
        with pytest.raises(ValueError, match="cannot split 16 structures into"):
            ensemble_data(folder, num_train=1.0, **options).setup()
    assert "training on 8 of 16 structures: set data.num_train" in caplog.text
    caplog.clear()
    ensemble_data(folder, num_train=14, num_val=1, num_test=1, split_file=None).setup()
    assert "training on" not in caplog.text


def test_partitions_that_a_continued_run_keeps_are_told(built, tmp_path, caplog):
    folder, split = Path(built.datapath).parents[1], str(tmp_path / "split.npz")
    for _ in range(2):
        ensemble_data(folder, split_file=split).setup()
    assert "have no effect" not in caplog.text
    for changed in ({"num_train": 0.25}, {"splitting": ParentSplit(seed=1)}):
        caplog.clear()
        ensemble_data(folder, split_file=split, **changed).setup()
        assert "keeps the 8 training, 4 validation and 4 test structures of" in caplog.text
