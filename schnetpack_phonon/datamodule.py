"""SchNetPack data module that makes its own database when there is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from schnetpack import properties as structure_keys
from schnetpack.data import ASEAtomsData, AtomsDataModule, AtomsLoader

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.ensembles.base import Ensemble
from schnetpack_phonon.generation import Generation
from schnetpack_phonon.labels.finite_strain import FiniteStrain
from schnetpack_phonon.loading import GraphDataset, GraphLoading
from schnetpack_phonon.phonons.force_constants import PhononSource
from schnetpack_phonon.preparation import Recipe
from schnetpack_phonon.structures.crystals import StructureSource

_DATASETS = Path(__file__).parent / "datasets"


class EnsembleData(AtomsDataModule):
    """Displaced crystals with labels: structure -> phonons -> ensemble -> labels -> database.

    If there is no database at ``datapath``, :meth:`prepare_data` makes it. Labels are kept one
    by one in ``label_store``, so an interrupted build goes on where it stopped, and databases
    that share structures share labels. If there is one, it must have been made with the same
    settings. All else is the host's :class:`schnetpack.data.AtomsDataModule`.

    Args:
        datapath: the database, ``.db``; force constants go to a folder ``phonons`` beside it.
        structure: the crystals.
        phonons: how their force constants come about (for ensembles that need them).
        ensemble: the sampler.
        calculator: the code that labels.
        executor: makes the executor that runs it.
        label_store: file of finished labels.
        max_failed_share: largest share of calculations that may fail; each one that does is
            replaced by the next snapshot of its group.
        shipped_labels: file of labels that comes with this package, looked at before any is
            computed.
        elastic: gives elastic tensors beside what the calculator does.
        loading: keeps graphs in memory; without it batches are made as the host does.
        batch_size: (train) batch size.
        kwargs: of the host's data module.
    """

    def __init__(
        self,
        datapath: str,
        structure: StructureSource,
        phonons: PhononSource,
        ensemble: Ensemble,
        calculator: LabellingCalculator,
        executor: Callable[[], Executor],
        label_store: str,
        batch_size: int,
        max_failed_share: float = 0.1,
        shipped_labels: str | None = None,
        elastic: FiniteStrain | None = None,
        loading: GraphLoading | None = None,
        **kwargs: Any,
    ):
        super().__init__(datapath=datapath, batch_size=batch_size, **kwargs)
        self.generation = Generation(
            Recipe(structure, phonons, ensemble, calculator, elastic),
            Path(datapath),
            executor,
            Path(label_store),
            max_failed_share,
            _DATASETS / shipped_labels if shipped_labels else None,
        )
        self._loading = loading
        self._transforms_ready = False
        self._graphs: dict[tuple[int, ...], GraphDataset] = {}

    def prepare_data(self) -> None:
        """Makes the database or checks it: :meth:`.Generation.ensure`."""
        trained_on = self.load_properties if self.trainer is not None else None
        self.generation.ensure(trained_on or ())

    def preview(self) -> str:
        """Describes the data to be made: :meth:`.Generation.preview`."""
        return self.generation.preview()

    def _load_partitions(self) -> None:
        # A split by parent may be smaller than asked for; the host compares a stored split with
        # the sizes that were asked for and refuses to go on with its own run.
        if self.split_file is not None and os.path.exists(self.split_file):
            with np.load(self.split_file) as split:
                sizes = [len(split[f"{part}_idx"]) for part in ("train", "val", "test")]
            if sum(sizes) > len(self.dataset):
                raise ValueError(
                    f"{Path(self.split_file).absolute()} splits {sum(sizes)} structures, the "
                    f"database has {len(self.dataset)}: it belongs to another database; use "
                    "another run folder"
                )
            self.num_train, self.num_val, self.num_test = sizes
        super()._load_partitions()

    def _setup_transforms(self) -> None:
        self._transforms_ready = False
        self._graphs = {}
        super()._setup_transforms()
        self._transforms_ready = True
        # Transforms may have asked for statistics and so for a loader without any of them.
        self._train_dataloader = self._val_dataloader = self._test_dataloader = None

    def train_dataloader(self) -> AtomsLoader:
        if self._loading is None or not self._transforms_ready:
            return super().train_dataloader()
        if self._train_dataloader is None:
            data = self._graphs_of(self._train_dataset)
            sampler = self._setup_sampler(self.train_sampler_cls, self.train_sampler_args, data)
            order = {"shuffle": True} if sampler is None else {"batch_sampler": sampler}
            batch_size = self.batch_size if sampler is None else 1
            self._train_dataloader = self._loader(data, self.num_workers, batch_size, **order)
        return self._train_dataloader

    def val_dataloader(self) -> AtomsLoader:
        if self._loading is None or not self._transforms_ready:
            return super().val_dataloader()
        if self._val_dataloader is None:
            data = self._graphs_of(self._val_dataset)
            self._val_dataloader = self._loader(data, self.num_val_workers, self.val_batch_size)
        return self._val_dataloader

    def test_dataloader(self) -> AtomsLoader:
        if self._loading is None or not self._transforms_ready:
            return super().test_dataloader()
        if self._test_dataloader is None:
            data = self._graphs_of(self._test_dataset)
            self._test_dataloader = self._loader(data, self.num_test_workers, self.test_batch_size)
        return self._test_dataloader

    def _graphs_of(self, part: ASEAtomsData) -> GraphDataset:
        """Graphs of a partition; those of the database are opened once for the same transforms."""
        assert self._loading is not None
        key = tuple(map(id, part.transforms))
        if key not in self._graphs:
            self._graphs[key] = self._loading.open(part, part.transforms)
        return self._graphs[key].subset(part.subset_idx)

    def _loader(
        self, data: GraphDataset, num_workers: int, batch_size: int, **order: Any
    ) -> AtomsLoader:
        assert self._loading is not None
        return self._loading.loader(
            data, self.trainer, self._pin_memory, num_workers, batch_size, **order
        )


def training_labels(
    datamodule: AtomsDataModule, key: str, shape: tuple[int, ...] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of the training set and what its structures are made of.

    Args:
        datamodule: any data module of the host, after its ``setup``.
        key: property of structures.
        shape: of one structure's value.

    Returns:
        Labels in the data module's unit, NaN where there is none, shape=(n_structures, *shape),
        and the share of each element, shape=(n_structures, 101); both float64.

    Raises:
        ValueError: if the property is not in the database or has another shape.
    """
    labels, shares = _read_labels(datamodule, key)
    for k, label in zip(datamodule.train_idx, labels, strict=True):
        if label.shape != (1, *shape):
            raise ValueError(
                f"{key!r} of structure {k} in {datamodule.dataset.datapath} has shape "
                f"{tuple(label.shape)}; expected {(1, *shape)}: choose a head for this shape, or "
                "write the database anew"
            )
    return torch.cat(labels), shares


def composition_fit(
    datamodule: AtomsDataModule, key: str, shape: tuple[int, ...] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least-squares fit of an intensive property to the composition of the training set.

    The solution of smallest norm is taken, since a fixed stoichiometry leaves it undetermined.
    Structures without a label (NaN) are left out.

    Args:
        datamodule: any data module of the host, after its ``setup``.
        key: property of structures.
        shape: of one structure's value.

    Returns:
        Offset of each element, shape=(101, *shape), and the root mean square of what the fit
        leaves of a component, shape=(1,); both float64, in the data module's unit.

    Raises:
        ValueError: as :func:`training_labels` does, and if there is no label.
    """
    labels, shares = training_labels(datamodule, key, shape)
    labels = labels.flatten(1) if shape else labels[:, None]
    present = labels.isfinite().all(dim=1)
    _check_any(present, datamodule, key)
    offset, rest = fit_to_shares(labels[present], shares[present])
    return offset.reshape(101, *shape), _root_mean_square(rest)


def fit_to_shares(labels: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Least-squares fit of smallest norm of labels by a value for each element.

    Args:
        labels: shape=(n_structures, k).
        shares: of each element, shape=(n_structures, 101).

    Returns:
        Value of each element, shape=(101, k), and what the fit leaves, shape=(n_structures, k).
    """
    offset = torch.linalg.lstsq(shares, labels, driver="gelsd").solution
    return offset, labels - shares @ offset


def label_spread(datamodule: AtomsDataModule, key: str) -> torch.Tensor:
    """How much the labels of the training set vary, in the data module's unit.

    That is what :func:`composition_fit` leaves of a property of structures, whatever its shape,
    and the root mean square of a component of a property of atoms (forces); float64, shape=(1,).

    Raises:
        ValueError: as :func:`composition_fit` does.
    """
    labels, _ = _read_labels(datamodule, key)
    if all(len(label) == 1 for label in labels):
        return composition_fit(datamodule, key, tuple(labels[0].shape[1:]))[1]
    values = torch.cat([label.flatten() for label in labels])
    _check_any(values.isfinite(), datamodule, key)
    return _root_mean_square(values[values.isfinite()])


def training_elements(datamodule: AtomsDataModule, key: str) -> torch.Tensor:
    """Whether each element is in the training set, which has the property ``key``; shape=(101,)."""
    return _read_labels(datamodule, key)[1].any(dim=0)


def _read_labels(datamodule: AtomsDataModule, key: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Labels of the training set as they are stored, and the share of each element; read once."""
    read = datamodule.__dict__.setdefault("_training_labels", {})
    if key not in read:
        dataset = datamodule.dataset
        if key not in dataset.available_properties:
            raise ValueError(
                f"no property {key!r} in {dataset.datapath}; there are "
                f"{', '.join(dataset.available_properties)}"
            )
        keys = {key, *dataset.load_properties}  # all in one go through the database
        labels: dict[str, list[torch.Tensor]] = {k: [] for k in keys}
        counts = []
        with dataset.conn:  # opened once for all of them
            for item in dataset.iter_properties(datamodule.train_idx, load_properties=list(keys)):
                counts.append(torch.bincount(item[structure_keys.Z], minlength=101).double())
                for k, values in labels.items():
                    values.append(item[k].double())
        shares = torch.stack([count / count.sum() for count in counts])
        read.update({k: (values, shares) for k, values in labels.items()})
    return read[key]


def _check_any(present: torch.Tensor, datamodule: AtomsDataModule, key: str) -> None:
    if not present.any():
        path = datamodule.dataset.datapath
        raise ValueError(f"no training structure in {path} has a label {key!r}")


def _root_mean_square(values: torch.Tensor) -> torch.Tensor:
    """Never zero, since losses are divided by it; shape=(1,)."""
    return values.square().mean().sqrt().clamp(min=1e-12).reshape(1)
