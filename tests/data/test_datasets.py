"""The labels that ship make their databases without CP2K, and CP2K gives them again."""

from pathlib import Path

import ase.db
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import open_dict

import schnetpack_phonon
from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.common import properties
from schnetpack_phonon.data.card import content_digest
from schnetpack_phonon.data.database import read_metadata
from schnetpack_phonon.data.reading import read_labels, read_provenance
from tests.calculators.cp2k_fixtures import needs_cp2k

CARD = Path(schnetpack_phonon.__file__).parent / "datasets" / "README.md"


@pytest.fixture
def shipped(tmp_path, compose_train):
    """Kind of ensemble -> its database, made from shipped labels alone."""

    def make(kind):
        overrides = [
            "experiment=phonon_antiperovskite",
            f"data/ensemble={kind}",
            "data.calculator.command=no-such-cp2k",
            f"run.work_dir={tmp_path}",
            f"data.datapath={tmp_path}/{kind}.db",
            f"data.label_store={tmp_path}/labels.jsonl",
        ]
        config = compose_train(*overrides).data
        with open_dict(config):
            for key in ("splitting", "transforms", "loading"):
                del config[key]  # they refer to the experiment around them
        data = instantiate(config)
        data.prepare_data()
        assert not (tmp_path / "labels.jsonl").exists()  # nothing was computed
        return data.datapath

    return make


@pytest.mark.parametrize("kind", ["phonon", "random", "uniform", "matched"])
def test_shipped_labels_make_their_database_without_cp2k(shipped, kind):
    path = shipped(kind)
    metadata, provenance, labels = read_metadata(path), read_provenance(path), read_labels(path)
    assert metadata["versions"]["calculator"] == "CP2K 2023.1"
    ((parameter, _),) = metadata["parameters"].values()
    counts = provenance.groupby(["structure", parameter]).size()
    assert len(counts) == 16
    assert counts.nunique() == 1
    assert len(provenance) == metadata["n_rows"] == 16 * counts.iloc[0]
    assert (labels[properties.band_gap] <= labels[properties.band_gap_gamma]).all()
    assert labels.notna().all(axis=None)
    assert f"`{content_digest(path)}`" in CARD.read_text()
    if kind == "phonon":
        assert (provenance["n_imaginary"] > 50).all()
        assert (provenance["phonon_policy"] == "floor 1 THz").all()
        phonons = metadata["settings"]["phonons"]
        floored = {"source": "finite displacements", "policy": "floor", "floor": 1.0}
        assert phonons == {**floored, "distance": 0.06}  # as when the labels were made


@needs_cp2k
@pytest.mark.slow
def test_cp2k_gives_shipped_labels_again(shipped):
    """Two rows anywhere: 1e-4 eV in levels, 1e-5 eV per atom, 1e-4 eV/Ang in forces."""
    path = shipped("random")
    calculator = CP2K()
    if calculator.code_version != "CP2K 2023.1":
        pytest.skip(f"labels are of CP2K 2023.1; {calculator.code_version} is installed")
    n_rows = len(read_provenance(path))
    with ase.db.connect(path) as db:
        for index in np.random.default_rng().choice(n_rows, 2, replace=False).tolist():
            row = db.get(index + 1)
            fresh = calculator.label(row.toatoms())
            limits = {
                properties.band_gap: 1e-4,
                properties.vbm: 1e-4,
                properties.cbm: 1e-4,
                properties.energy_per_atom: 1e-5,
                properties.forces: 1e-4,
            }
            for key, limit in limits.items():
                np.testing.assert_allclose(
                    fresh[key], row.data[key], rtol=0, atol=limit, err_msg=f"{key} of row {index}"
                )
