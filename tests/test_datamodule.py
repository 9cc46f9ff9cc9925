"""EnsembleData as the host's data module."""

from pathlib import Path

import numpy as np
import pytest

from schnetpack_phonon import properties
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
