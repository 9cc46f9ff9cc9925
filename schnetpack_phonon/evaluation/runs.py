"""A trained model's folder: what it was trained on, with what, and for how long."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.files import replacing

RECORD = "run.json"


CONFIG = "config.yaml"


SPLIT = "split.npz"


_FORMAT = 1


_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Run:
    """A finished run of ours or of the host.

    Attributes:
        folder: absolute.
        datapath: its database.
        model: the trained model, a pickle of the host.
        config: of Hydra, not resolved; says where the database and the label store are now.
        train_idx: rows of the database that trained it.
        val_idx: rows that chose when to stop.
        test_idx: rows that it never saw.
        targets: output of the model -> label.
        record: what the run wrote of itself (:func:`write_record`); empty for runs of the host.
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

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def seed(self) -> int | None:
        return self.record.get("seed", self.config.get("seed"))

    def resolved(self, key: str, default: Any = None) -> Any:
        """A part of the configuration as plain values.

        Raises:
            RunError: if it refers to what only the process of the run knew.
        """
        try:
            found = OmegaConf.select(self.config, key)
            if OmegaConf.is_config(found):
                found = OmegaConf.to_container(found, resolve=True)
        except OmegaConfBaseException as error:
            raise RunError(f"{key} of {self.folder / CONFIG} cannot be read: {error}") from error
        return default if found is None else found


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Keeps what cannot be read from the other files of a run.

    Args:
        folder: of the run.
        record: ``datapath``, ``targets``, ``seed`` and whatever else is plain.
    """
    place = {"datapath_from_here": os.path.relpath(record["datapath"], folder)}
    with replacing(folder / RECORD) as part:
        Path(part).write_text(json.dumps({"format": _FORMAT, **record, **place}, indent=1))


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """Folders of runs in and below some folders, each once, in order.

    Raises:
        RunError: if a path is no folder, or holds no run at all.
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


def read_run(folder: Path) -> Run:
    """A finished run.

    Raises:
        RunError: if the run is unfinished or broken, with the reason.
    """
    folder = folder.resolve()
    try:
        config = OmegaConf.load(folder / CONFIG)
    except Exception as error:  # YAML, encoding and file errors share no base class
        raise RunError(f"{CONFIG} cannot be read ({type(error).__name__})") from error
    if not isinstance(config, DictConfig) or "data" not in config:
        raise RunError(f"{CONFIG} is not that of a SchNetPack run")
    record = _read_record(folder)
    model = folder / config.get("globals", {}).get("model_path", "best_model")
    # The host keeps its best model so far under model_path, and the task at the very end.
    if not (model.is_file() and model.with_name(f"{model.name}.task").is_file()):
        raise RunError(f"no {model.name}.task: the run is not finished")
    try:
        with np.load(folder / SPLIT) as split:
            train, val, test = (split[f"{part}_idx"].astype(int) for part in _PARTS)
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{SPLIT} is missing or damaged") from error
    datapath = _datapath(folder, record, config)
    _place(config, datapath.parent.parent)
    config.data.datapath = str(datapath)
    targets = record.get("targets") or {
        output["name"]: output.get("target_property") or output["name"]
        for output in config.task.outputs
    }
    return Run(folder, datapath, model, config, train, val, test, targets, record)


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RunError(f"{RECORD} is damaged") from error
    if record.pop("format", None) != _FORMAT:
        raise RunError(f"{RECORD} is of another version of schnetpack_phonon")
    return record


def _datapath(folder: Path, record: dict[str, Any], config: DictConfig) -> Path:
    """Where the database is now: runs and data may have been moved together."""
    if record:
        places = [Path(record["datapath"]), folder / record["datapath_from_here"]]
    else:
        places = []
        for parent in folder.parents[:4]:
            _place(config, parent)
            with suppress(OmegaConfBaseException):
                places.append(Path(config.data.datapath))
        if not places:
            raise RunError("cannot tell its database: data.datapath refers to the process")
    for place in places:
        if place.is_file():
            return place.resolve()
    raise RunError(f"its database is not at {places[0]}")


def _place(config: DictConfig, work_dir: Path) -> None:
    """Says in which folder the command was typed, which only Hydra knew."""
    OmegaConf.update(config, "run.work_dir", str(work_dir), force_add=True)


@dataclass(frozen=True)
class Question:
    """What to ask a model.

    Attributes:
        path: a pickle of the host, so of runs that one trusts.
        transforms: of its data module, to be made anew.
        targets: output -> label.
        labels: all that there are; outputs of these names that were not trained are asked, too.
    """

    path: Path
    transforms: tuple[dict[str, Any], ...]
    targets: Mapping[str, str]
    labels: tuple[str, ...]
