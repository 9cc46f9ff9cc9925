"""SchNetPack data module that makes its own database if there is none."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from schnetpack.data import ASEAtomsData, AtomsDataModule, AtomsLoader

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.common.executors import process_pool
from schnetpack_phonon.common.files import DATASETS, read_npz
from schnetpack_phonon.common.properties import band_gap, band_gap_spin
from schnetpack_phonon.data.generation import Generation
from schnetpack_phonon.data.loading.loaders import GraphDataset, GraphLoading
from schnetpack_phonon.data.preparation import Recipe
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.data.splits import ParentSplit, numbers_of
from schnetpack_phonon.ensembles.base import Ensemble, planned_parents
from schnetpack_phonon.labels.finite_strain import FiniteStrain
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements, PhononSource
from schnetpack_phonon.structures.crystals import Crystal, StructureSource

log = logging.getLogger(__name__)
_FEW = 10  # training structures, from which no model learns
_MOST_NAMES = 4  # of crystals, in the name of a file


class EnsembleData(AtomsDataModule):
    """Displaced crystals with labels: structure -> phonons -> ensemble -> labels -> database.

    :meth:`prepare_data` makes the database if there is none at ``datapath``; one that exists must
    have been made with the same settings. Each label is kept in ``label_store``, so that an
    interrupted build can be continued and databases that share structures share labels.
    All else is :class:`schnetpack.data.AtomsDataModule`.

    Args:
        datapath: the database, ``.db``, in which ``{crystals}`` stands for their names; force
            constants go to a folder ``phonons`` beside it.
        structure: the crystals.
        ensemble: the sampler.
        calculator: the code that computes labels.
        phonons: source of their force constants (for ensembles that need them); finite
            displacements by default.
        executor: makes the executor that runs the calculator; worker processes by default.
        label_store: file of finished labels; ``labels.jsonl`` beside the database by default.
        batch_size: (train) batch size.
        max_failed_share: largest share of calculations that may fail; each one that does is
            replaced by the next snapshot of its group.
        shipped_labels: file of labels that comes with this package, used before any is computed.
        elastic: computes elastic tensors, in addition to the labels of the calculator.
        loading: keeps graphs in memory; without it batches are made as SchNetPack does.
        work_dir: where relative paths of database, labels and graphs start.
        kwargs: of SchNetPack's data module. By default ``num_train``, ``num_val`` and ``num_test``
            are 0.8, 0.1 and 0.1, ``splitting`` is :class:`.ParentSplit` with seed 0, and batches
            are loaded without further processes.

    Raises:
        TypeError: for a part of another kind than it should be.
    """

    num_train: float | None
    num_val: float | None
    num_test: float | None

    def __init__(
        self,
        datapath: str | Path,
        structure: StructureSource,
        ensemble: Ensemble,
        calculator: LabellingCalculator,
        phonons: PhononSource | None = None,
        executor: Callable[[], Executor] = process_pool,
        label_store: str | Path | None = None,
        batch_size: int = 10,
        max_failed_share: float = 0.1,
        shipped_labels: str | None = None,
        elastic: FiniteStrain | None = None,
        loading: GraphLoading | None = None,
        work_dir: str = ".",
        **kwargs: Any,
    ):
        if Path(datapath).suffix != ".db":  # SchNetPack's message does not name the option
            raise ValueError(f"data.datapath is '{datapath}'; expected the path of a file NAME.db")
        phonons = FiniteDisplacements() if phonons is None else phonons
        _check_parts(structure=structure, ensemble=ensemble, calculator=calculator, phonons=phonons)
        path = Path(work_dir, str(datapath).replace("{crystals}", _joined(structure.crystals)))
        usual = {"num_train": 0.8, "num_val": 0.1, "num_test": 0.1, "num_workers": 0}
        options = {**usual, "splitting": ParentSplit(seed=0), **kwargs}
        super().__init__(datapath=str(path), batch_size=batch_size, **options)
        self.generation = Generation(
            Recipe(structure, phonons, ensemble, calculator, elastic),
            path,
            executor,
            Path(work_dir, label_store) if label_store else path.with_name("labels.jsonl"),
            max_failed_share,
            DATASETS / shipped_labels if shipped_labels else None,
        )
        if loading is not None:
            loading.cache = Path(work_dir, loading.cache)
        self._loading = loading
        self._transforms_ready = False
        self._graphs: dict[tuple[int, ...], GraphDataset] = {}

    def prepare_data(self) -> None:
        """Makes the database, or checks the one that exists: :meth:`.Generation.ensure`.

        Raises:
            ValueError: if a trainer could not train on it, before anything is computed; without a
                trainer that is a warning.
        """
        self._check_training()
        self.generation.ensure()
        if self.trainer is not None and band_gap_spin in (self.load_properties or ()):
            (first,) = read_rows(self.datapath, [0])
            if band_gap_spin not in first.data:
                raise ValueError(
                    f"data.load_properties asks for {band_gap_spin}, which no structure in "
                    f"{self.datapath} has: both spins have the same levels, take {band_gap}"
                )

    def preview(self) -> str:
        """Describes the data before labels are computed: :meth:`.Generation.preview`."""
        self._check_training()
        return self.generation.preview()

    def _check_training(self) -> None:
        problem = self.generation.missing_labels(self.load_properties or ()) or self._wrong_sizes()
        if problem and self.trainer is not None:
            raise ValueError(problem)
        if problem:
            log.warning("no model can be trained with these options: %s", problem)

    def _wrong_sizes(self) -> str | None:
        """What is wrong with the sizes of a split that is not made yet."""
        if self.split_file is not None and os.path.exists(self.split_file):
            return None
        recipe = self.generation.recipe
        parents = planned_parents(recipe.ensemble, recipe.structure.crystals)
        sizes = {"train": self.num_train, "val": self.num_val, "test": self.num_test}
        try:
            numbers = numbers_of(len(parents), [*sizes.values()])
            for (name, size), number in zip(sizes.items(), numbers, strict=True):
                if size and not number:
                    raise ValueError(
                        f"data.num_{name}={size:g} of {len(parents)} structures is none; expected "
                        "at least one: draw more snapshots, or raise it"
                    )
            if isinstance(self.splitting, ParentSplit):
                self.splitting.split_parents(parents, *numbers)
        except ValueError as error:
            return str(error)
        return None

    def _load_partitions(self) -> None:
        sizes: Sequence[float | None] = [self.num_train, self.num_val, self.num_test]
        # A split by parent may be smaller than requested. SchNetPack compares a stored split with
        # the requested sizes and would refuse to continue its own run.
        if self.split_file is not None and os.path.exists(self.split_file):
            split = read_npz(Path(self.split_file).absolute())
            parts = [split[f"{part}_idx"].tolist() for part in ("train", "val", "test")]
            n_split = sum(map(len, parts))
            if n_split > len(self.dataset):
                raise ValueError(
                    f"{Path(self.split_file).absolute()} splits {n_split} structures, the "
                    f"database has {len(self.dataset)}: the split is of another database; use "
                    "another run folder"
                )
            stored = list(map(len, parts))
            repeatable = isinstance(self.splitting, ParentSplit) and sizes.count(None) < 2
            if repeatable and self.splitting.split(self.dataset, *sizes) != parts:
                log.warning(
                    "the run keeps the %d training, %d validation and %d test structures of %s: "
                    "num_train, num_val, num_test and splitting have no effect",
                    *stored,
                    self.split_file,
                )
            sizes = stored
        # SchNetPack takes 1.0 for one structure.
        self.num_train, self.num_val, self.num_test = numbers_of(len(self.dataset), sizes)
        super()._load_partitions()
        if len(self.train_idx) < _FEW:
            log.warning(
                "training on %d of %d structures: set data.num_train to a share, such as 0.8, or "
                "to a larger number",
                len(self.train_idx),
                len(self.dataset),
            )

    def _setup_transforms(self) -> None:
        self._transforms_ready = False
        self._graphs = {}
        super()._setup_transforms()
        self._transforms_ready = True
        # Transforms may have asked for statistics and so for a loader without any of them.
        self._train_dataloader = self._val_dataloader = self._test_dataloader = None

    # SchNetPack returns a loader that is already there.

    def train_dataloader(self) -> AtomsLoader:
        if self._on_graphs and self._train_dataloader is None:
            data = self._graphs_of(self._train_dataset)
            sampler = self._setup_sampler(self.train_sampler_cls, self.train_sampler_args, data)
            order = {"shuffle": True} if sampler is None else {"batch_sampler": sampler}
            batch_size = self.batch_size if sampler is None else 1
            self._train_dataloader = self._loader(data, self.num_workers, batch_size, **order)
        return super().train_dataloader()

    def val_dataloader(self) -> AtomsLoader:
        if self._on_graphs and self._val_dataloader is None:
            data = self._graphs_of(self._val_dataset)
            self._val_dataloader = self._loader(data, self.num_val_workers, self.val_batch_size)
        return super().val_dataloader()

    def test_dataloader(self) -> AtomsLoader:
        if self._on_graphs and self._test_dataloader is None:
            data = self._graphs_of(self._test_dataset)
            self._test_dataloader = self._loader(data, self.num_test_workers, self.test_batch_size)
        return super().test_dataloader()

    @property
    def _on_graphs(self) -> bool:
        return self._loading is not None and self._transforms_ready

    def _graphs_of(self, part: ASEAtomsData) -> GraphDataset:
        """Graphs of a partition; those of the database are opened once for the same transforms."""
        assert self._loading is not None
        key = tuple(map(id, part.transforms))
        if key not in self._graphs:
            self._graphs[key] = self._loading.open(part, part.transforms)
        return self._graphs[key].subset(part.subset_idx)

    def _loader(self, data: GraphDataset, n_workers: int, size: int, **order: Any) -> AtomsLoader:
        assert self._loading is not None
        return self._loading.loader(data, self.trainer, self._pin_memory, n_workers, size, **order)


def _joined(crystals: Sequence[Crystal]) -> str:
    """``MgO-CaO``; of many crystals the first names and how many more there are."""
    names = list(dict.fromkeys(crystal.composition or crystal.name for crystal in crystals))
    if len(names) > _MOST_NAMES:
        names[_MOST_NAMES - 1 :] = [f"and-{len(names) - _MOST_NAMES + 1}-more"]
    return "-".join(names)


def _check_parts(**parts: object) -> None:
    """Raises TypeError for a part that is something else, such as a bare ASE calculator."""
    for name, part in parts.items():
        method, expected = _PARTS[name]
        if isinstance(part, type) or not hasattr(part, method):
            raise TypeError(f"{name} is {part!r}; expected {expected}")


#: Of each part: what it must have, and what to give.
_PARTS = {
    "structure": ("crystals", "crystals: Crystals([crystal]), StructureFile, Antiperovskites"),
    "ensemble": ("members", "an ensemble, such as PhononEnsemble([300], n_snapshots=50, seed=0)"),
    "calculator": ("ase_calculator", "a labelling calculator; for one of ASE AseCalculator(EMT)"),
    "phonons": ("models", "a source of force constants: FiniteDisplacements(), PhonopyFiles(PATH)"),
}
