"""Loaders of graphs beside SchNetPack's: the same batches in the same order, the same training."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_lightning import seed_everything
from schnetpack.data import NumberOfAtomsCriterion, StratifiedSampler
from schnetpack.transform import (
    CastTo32,
    MatScipyNeighborList,
    RemoveOffsets,
    Transform,
)
from torch.utils.data import DistributedSampler

from schnetpack_phonon.data.loading.loaders import GraphLoading, Shares
from tests.data.loading.loading_fixtures import (
    assert_same,
    energy_task,
    on_graphs,
    on_host,
    small_database,
)
from tests.models.model_fixtures import quiet_trainer

SAMPLER = {
    "train_sampler_cls": StratifiedSampler,
    "train_sampler_args": {"partition_criterion": NumberOfAtomsCriterion(), "num_bins": 2},
}


class Jiggle(Transform):
    """Augmentation: a random step of every atom."""

    def forward(self, inputs):
        inputs["_positions"] = inputs["_positions"] + 0.01 * torch.randn_like(inputs["_positions"])
        return inputs


KINDS = {
    "in memory": {},
    "streamed": {"memory_budget": 0.0},
    "on the device": {"on_device": True},
    "one for all": {"batch_size": 100},
    "sampler": SAMPLER,
    "augmentation last": {"transforms": [MatScipyNeighborList(cutoff=4.0), CastTo32(), Jiggle()]},
    "augmentation first": {"transforms": [Jiggle(), MatScipyNeighborList(cutoff=4.0), CastTo32()]},
    "statistics": {
        "transforms": [
            RemoveOffsets("energy", remove_mean=True, is_extensive=False),
            MatScipyNeighborList(cutoff=4.0),
            CastTo32(),
        ]
    },
    "others for training": {
        "train_transforms": [MatScipyNeighborList(cutoff=4.0), CastTo32(), Jiggle()],
    },
    "units": {"property_units": {"energy": "kcal/mol"}, "load_properties": ["energy"]},
}


@pytest.fixture
def path(tmp_path):
    return small_database(tmp_path / "a.db")


def of_the_host(settings):
    return {k: v for k, v in settings.items() if k not in ("memory_budget", "on_device")}


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_those_of_the_host_in_the_same_order(path, tmp_path, kind):
    """Over two epochs, from the same seed on."""
    seen = []
    for data in (
        on_graphs(path, tmp_path / "cache", **KINDS[kind]),
        on_host(path, **of_the_host(KINDS[kind])),
    ):
        torch.manual_seed(7)
        loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
        seen.append([[list(loader) for loader in loaders] for _ in range(2)])
        assert [len(loader) for loader in loaders] == [len(part) for part in seen[-1][0]]
    assert [len(part) for part in seen[0][0]] == [len(part) for part in seen[1][0]]
    ours, hosts = ([b for epoch in s for part in epoch for b in part] for s in seen)
    for one, other in zip(ours, hosts, strict=True):
        assert_same(one, other)


def fit(data, folder, **kwargs):
    seed_everything(4, workers=True)
    options = {"max_epochs": 2, "default_root_dir": folder, "num_sanity_val_steps": 0, **kwargs}
    trainer = quiet_trainer(**options)
    trained = energy_task()
    trainer.fit(trained, **data)
    losses = {name: value.item() for name, value in trainer.callback_metrics.items()}
    return losses, [p.detach().clone() for p in trained.parameters()]


@pytest.mark.parametrize("kind", ["in memory", "streamed", "augmentation last", "statistics"])
def test_training_is_that_of_the_host_to_the_last_bit(path, tmp_path, kind):
    ours = on_graphs(path, tmp_path / "cache", **KINDS[kind])
    hosts = on_host(path, **of_the_host(KINDS[kind]))
    (loss, weights), (expected, expected_weights) = (
        fit({"datamodule": data}, tmp_path) for data in (ours, hosts)
    )
    assert loss == expected
    assert "val_loss" in loss
    for one, other in zip(weights, expected_weights, strict=True):
        assert torch.equal(one, other)


def test_what_cannot_be_kept_is_said(path, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    data = on_graphs(path, tmp_path / "cache", **KINDS["augmentation last"])
    data.train_dataloader()
    assert "Jiggle draws random numbers: applied to each structure each time: Jiggle" in caplog.text
    assert len(data.train_dataloader().dataset.transforms) == 1


def test_workers_are_started_for_what_must_be_done_each_time(path, tmp_path):
    still = on_graphs(path, tmp_path / "cache", num_workers=2)
    busy = on_graphs(path, tmp_path / "cache", num_workers=2, memory_budget=0.0)
    assert still.train_dataloader().num_workers == 0
    assert busy.train_dataloader().num_workers == 2
    for one, other in zip(still.val_dataloader(), busy.val_dataloader(), strict=True):
        assert_same(one, other)


def test_partitions_share_graphs_unless_their_transforms_differ(path, tmp_path):
    data = on_graphs(path, tmp_path / "cache")
    parts = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    assert len({id(loader.dataset.graphs) for loader in parts}) == 1
    assert data.train_dataloader() is data.train_dataloader()


def test_samples_are_those_of_the_host(path, tmp_path):
    """Also one at a time, as callbacks may ask for them."""
    ours, hosts = on_graphs(path, tmp_path / "cache"), on_host(path)
    dataset = ours.test_dataloader().dataset
    assert len(dataset) == len(hosts.test_dataset)
    for k in range(len(dataset)):
        assert_same(dataset[k], hosts.test_dataset[k])


def test_folder_that_cannot_be_written_costs_a_warning(path, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    ours, hosts = on_graphs(path, tmp_path / "cache"), on_host(path)
    for one, other in zip(ours.test_dataloader(), hosts.test_dataloader(), strict=True):
        assert_same(one, other)
    assert "made for this run only" in caplog.text
    assert "data.loading.cache" in caplog.text


@pytest.mark.parametrize("budget", [-1.0, float("nan")])
def test_memory_budget_that_is_none_is_refused(tmp_path, budget):
    with pytest.raises(ValueError, match=r"data\.loading\.memory_budget is .* expected >= 0"):
        GraphLoading(str(tmp_path), budget)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n_processes", [2, 3])
@pytest.mark.parametrize("n", range(1, 20))
def test_shares_hold_every_structure_once(n, n_processes, shuffle):
    """Unless a process would have nothing to do in the last step."""
    shares = [
        Shares(range(n), SimpleNamespace(world_size=n_processes, global_rank=rank), 3, shuffle)
        for rank in range(n_processes)
    ]
    drawn = [list(share) for share in shares]
    assert [len(share) for share in shares] == [len(share) for share in drawn]
    assert len({-(-len(share) // 3) for share in drawn}) == 1  # as many steps
    together = sorted(number for share in drawn for number in share)
    left = n % (3 * n_processes)
    if left == 0 or left >= n_processes:
        assert together == list(range(n))
    else:
        assert set(together) == set(range(n))
        assert len(together) == n + n_processes - left


def test_order_of_shares_is_lightnings(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    share = Shares(range(20), SimpleNamespace(world_size=2, global_rank=1), 3, True)
    lightnings = DistributedSampler(range(20), 2, 1, shuffle=True, seed=5)
    epochs = []
    for epoch in range(3):
        share.set_epoch(epoch)
        lightnings.set_epoch(epoch)
        epochs.append(list(share))
        assert epochs[-1] == list(lightnings)
    assert len(set(map(tuple, epochs))) == 3


def test_two_processes_train_as_one_with_the_double_batch(path, tmp_path):
    found = {}
    for n_processes, batch_size in ((2, 3), (1, 6)):
        folder = tmp_path / str(n_processes)
        folder.mkdir()
        command = [sys.executable, "-W", "ignore", "-m", "tests.data.loading.ddp_run"]
        options = [str(path), str(folder), str(n_processes), str(batch_size)]
        subprocess.run([*command, *options], check=True, cwd=Path(__file__).parents[3], timeout=300)
        found[n_processes] = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    (one,) = found[1]
    two = found[2]
    assert len(two) == 2
    for epoch in range(2):
        steps = range(2 * epoch, 2 * epoch + 2)
        seen = sorted(i for rank in two for step in steps for i in rank["seen"][step])
        assert seen == sorted(i for step in steps for i in one["seen"][step])
        assert len(set(seen)) == len(seen) == 12
    losses = np.mean([rank["losses"] for rank in two], axis=0)
    np.testing.assert_allclose(losses, one["losses"], rtol=1e-5)
    for rank in two:
        np.testing.assert_allclose(rank["weights"], one["weights"], atol=1e-6)
    assert np.ptp(one["losses"]) > 0.01
