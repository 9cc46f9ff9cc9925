"""Folders of finished runs: model, data, split, configuration and record."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.files import UNTRUSTED, Trust, read_npz, replacing

RECORD = "run.json"
CONFIG = "config.yaml"
SPLIT = "split.npz"
_FORMAT = 1


@dataclass(frozen=True)
class Run:
    """A finished run of this package or of SchNetPack alone.

    Attributes:
        folder: absolute path.
        datapath: path of its database.
        model: path of the trained model, a pickle of SchNetPack; its weights lie beside it.
        config: of Hydra, not resolved, with the current place of database and label store.
        train_idx: database rows of the training set.
        val_idx: database rows of the validation set.
        test_idx: database rows of the test set.
        targets: output of the model -> label.
        record: of :func:`write_record`; empty for runs of SchNetPack alone.
        trust: what its files may do.
    """

    folder: Path
    datapath: Path
    model: Path
    config: DictConfig
    train_idx: np.ndarray
    val_idx: np.ndarray
    test_idx: np.ndarray
    targets: dict[str, str]
    record: dict[str, Any] = field(default_factory=dict)
    trust: Trust = UNTRUSTED

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def seed(self) -> int | None:
        return self.record.get("seed", self.config.get("seed"))

    def resolved(self, key: str, default: Any = None) -> Any:
        """A part of the configuration as plain values.

        Raises:
            RunError: if it refers to values that only the process of the run had.
        """
        try:
            found = OmegaConf.select(self.config, key)
            if OmegaConf.is_config(found):
                found = OmegaConf.to_container(found, resolve=True)
        except OmegaConfBaseException as error:
            raise RunError(f"{key} of {self.folder / CONFIG} cannot be read: {error}") from error
        return default if found is None else found


@dataclass(frozen=True)
class Question:
    """A model and the properties to predict with it.

    Attributes:
        path: of the model.
        transforms: configuration of the transforms of its data module.
        targets: output -> label.
        labels: all labels that there are; untrained outputs of these names are predicted, too.
        elements: atomic numbers in the training set.
        length: what lengths in Ang are multiplied with for the model.
        trust: what the model and the transforms may do.
    """

    path: Path
    transforms: tuple[dict[str, Any], ...]
    targets: Mapping[str, str]
    labels: tuple[str, ...]
    elements: tuple[int, ...]
    length: float = 1.0
    trust: Trust = UNTRUSTED


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Writes facts about a run that its other files do not hold.

    Args:
        folder: of the run.
        record: ``datapath``, ``targets``, ``seed`` and other values of JSON.
    """
    place = {"datapath_from_here": os.path.relpath(record["datapath"], folder)}
    with replacing(folder / RECORD) as part:
        part.write_text(json.dumps({"format": _FORMAT, **record, **place}, indent=1))


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """Folders of runs in and below the given folders, each once, in order.

    Raises:
        RunError: if a path is not a folder, or holds no run.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise RunError(f"no folder {path.absolute()}: expected a run or a folder of runs")
        own = sorted({file.parent.resolve() for file in path.rglob(CONFIG)})
        if not own:
            raise RunError(f"no run in {path.absolute()}: none of its folders has a {CONFIG}")
        found |= dict.fromkeys(own)
    return list(found)


def read_run(folder: Path, trust: Trust = UNTRUSTED) -> Run:
    """Reads a finished run.

    Args:
        folder: of the run.
        trust: what its files may do. Runs of SchNetPack alone, and those of before version 0.2,
            have their model in a pickle only.

    Raises:
        RunError: if the run is not finished, damaged or not trusted, with the reason.
    """
    folder = folder.resolve()
    try:
        config = OmegaConf.load(folder / CONFIG)
    except Exception as error:  # YAML, encoding and file errors share no base class
        raise RunError(f"{CONFIG} cannot be read ({type(error).__name__})") from error
    if not isinstance(config, DictConfig) or "data" not in config:
        raise RunError(f"{CONFIG} is not the configuration of a SchNetPack run")
    record = _read_record(folder)
    model = folder / config.get("globals", {}).get("model_path", "best_model")
    # SchNetPack writes the best model so far under model_path, and the task at the very end.
    if not (model.is_file() and model.with_name(f"{model.name}.task").is_file()):
        raise RunError(f"no {model.name}.task: the run is not finished")
    if not model.with_name(f"{model.name}.npz").is_file():
        try:
            trust.check(f"its model is only in a pickle, {model.name}")
        except ValueError as error:
            raise RunError(str(error)) from None
    try:
        split = read_npz(folder / SPLIT)
        train, val, test = (split[f"{name}_idx"].astype(int) for name in ("train", "val", "test"))
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{SPLIT} is missing or damaged") from error
    datapath = _datapath(folder, record, config)
    _find_work_dir(config, [datapath.parent.parent, datapath.parent, *folder.parents[:4]])
    config.data.datapath = str(datapath)
    targets = record.get("targets") or {
        output["name"]: output.get("target_property") or output["name"]
        for output in config.task.outputs
    }
    return Run(folder, datapath, model, config, train, val, test, targets, record, trust)


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RunError(f"{RECORD} is damaged") from error
    if record.pop("format", None) != _FORMAT:
        raise RunError(f"{RECORD} is from another version of schnetpack_phonon")
    return record


def _datapath(folder: Path, record: dict[str, Any], config: DictConfig) -> Path:
    """Current place of the database: runs and data may have been moved together."""
    places = []
    if record:
        places = [Path(record["datapath"]), folder / record["datapath_from_here"]]
    for parent in [] if record else folder.parents[:4]:
        _place(config, parent)
        with suppress(OmegaConfBaseException):
            places.append(parent / config.data.datapath)
    if not places:
        raise RunError("its database is not known: only the process of the run knew data.datapath")
    for place in places:
        if place.is_file():
            return place.resolve()
    raise RunError(f"its database is not at {places[0]}")


def _find_work_dir(config: DictConfig, places: Sequence[Path]) -> None:
    """Sets the working folder to the first with the label store, or the first of all."""
    for place in (*places, places[0]):
        _place(config, place)
        with suppress(OmegaConfBaseException):
            if (place / (OmegaConf.select(config, "data.label_store") or "")).is_file():
                return


def _place(config: DictConfig, work_dir: Path) -> None:
    """Sets the folder in which the command was run, which only Hydra knew."""
    OmegaConf.update(config, "run.work_dir", str(work_dir), force_add=True)
