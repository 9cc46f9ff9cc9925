"""All properties of the structures in files, predicted by one or several models, as a file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from schnetpack_phonon.common.errors import ReportError, RunError
from schnetpack_phonon.common.files import UNTRUSTED, Trust, replacing
from schnetpack_phonon.common.page import markdown_table
from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.common.properties import PROPERTIES, element_names, forces
from schnetpack_phonon.data.database import Row
from schnetpack_phonon.data.export import write_xyz
from schnetpack_phonon.data.reading import Structure, read_rows, read_structures
from schnetpack_phonon.ensembles.active.distance import training_set
from schnetpack_phonon.evaluation.runs import read_run
from schnetpack_phonon.models.predict import Predictor

log = logging.getLogger(__name__)

FAR = 2.0  # distance from the training set above which a structure is counted
DISTANCE = "training_distance"
_AXES = ("xx", "yy", "zz", "yz", "xz", "xy")
_PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))

Values = dict[str, np.ndarray]  # of one structure, by key


def predict_files(
    models: Sequence[Path],
    paths: Sequence[Path],
    target: Path,
    device: str = "cpu",
    units: Mapping[str, str] | None = None,
    trust: Trust = UNTRUSTED,
) -> str:
    """Predicts all properties of all structures in files, and writes them.

    What a model gives for each bond is left out. Several models give the mean, and their standard
    deviation under ``NAME_std``. Where the training database of the first model is found, each
    structure has its distance from the training set (:mod:`.ensembles.active.distance`).

    Args:
        models: run folders or files of models.
        paths: of databases or of structure files, with one or more structures.
        target: ``.extxyz`` (energy, forces and stress where ASE looks for them) or ``.csv`` (a line
            a structure, of forces the largest).
        device: on which the models run.
        units: as for :class:`.Predictor`.
        trust: what the files of the runs may do.

    Returns:
        What was predicted, as a table, and where it is.

    Raises:
        ReportError: for another kind of file, one of the given ones, or models that differ in
            what they predict.
        ValueError: for a structure that cannot be predicted, before any is.
    """
    if target.suffix not in (".extxyz", ".csv"):
        raise ReportError(f"cannot write {target}: expected NAME.extxyz or NAME.csv")
    if target.resolve() in [path.resolve() for path in paths]:
        raise ReportError(f"{target} is one of the files with structures: take another name")
    predictors = [Predictor(model, device, units=units, trust=trust) for model in models]
    for other, model in zip(predictors[1:], models[1:], strict=True):
        if other.outputs != predictors[0].outputs:
            raise ReportError(
                f"{model} predicts {', '.join(other.outputs)}, {models[0]} "
                f"{', '.join(predictors[0].outputs)}; expected models of the same properties"
            )
    places = [(path, one) for path in paths for one in read_structures(path)]
    if not places:
        raise ReportError(f"no structures in {', '.join(map(str, paths))}")
    for path, structure in places:
        for predictor in predictors:
            try:
                predictor.check(structure.displaced)
            except ValueError as error:
                raise ValueError(f"structure {structure.index} of {path}: {error}") from None
    atoms = [structure.displaced for _, structure in places]
    distances = _distances(models[0], places, trust)
    with Progress("predictions", len(predictors) * len(atoms), unit="structures") as progress:
        found = [predictor(atoms, progress.update) for predictor in predictors]
    left_out = predictors[0].outputs_of_bonds
    values = [_joined(own, left_out) for own in zip(*found, strict=True)]
    if distances is not None:
        for own, distance in zip(values, distances, strict=True):
            own[DISTANCE] = np.array(distance)
    lines = [_line(*place, own) for place, own in zip(places, values, strict=True)]
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".csv":
        with replacing(target) as part:
            pd.DataFrame(lines).to_csv(part, index=False, na_rep="NaN")
    else:
        write_xyz(target, (_row(*place, own) for place, own in zip(places, values, strict=True)))
    wrong = [place for place, own in zip(places, values, strict=True) if not _finite(own)]
    return "\n".join(_summary(pd.DataFrame(lines), places, wrong, target))


def _joined(own: Sequence[Values], left_out: set[str]) -> Values:
    """Mean and standard deviation over models; the prediction itself for one."""
    keys = [key for key in own[0] if key not in left_out]
    if len(own) == 1:
        return {key: own[0][key] for key in keys}
    result: Values = {}
    for key in keys:
        stacked = np.stack([values[key] for values in own])
        result |= {key: stacked.mean(axis=0), f"{key}_std": stacked.std(axis=0, ddof=1)}
    return result


def _distances(
    model: Path, places: Sequence[tuple[Path, Structure]], trust: Trust
) -> np.ndarray | None:
    """Of each structure from the training set, where that is found."""
    try:
        run = read_run(model if model.is_dir() else model.parent, trust)
        training = training_set(
            [row.atoms for row in read_rows(run.datapath, run.train_idx.tolist(), data=False)]
        )
    except (RunError, ValueError) as error:
        log.info("no distances from the training set: %s", error)
        return None
    found = training.distances([structure.displaced for _, structure in places])
    for (path, structure), distance in zip(places, found, strict=True):
        if np.isinf(distance):
            raise ValueError(
                f"structure {structure.index} of {path}: "
                f"{structure.displaced.get_chemical_formula()} has elements that the training set "
                f"does not; it has {element_names(training.species)}"
            )
    return found


def _of_atoms(key: str, value: np.ndarray, n_atoms: int) -> bool:
    known = PROPERTIES.get(key.removesuffix("_std"))
    return "N" in known.shape if known else value.ndim > 0 and len(value) == n_atoms


def _unit(key: str) -> str:
    known = PROPERTIES.get(key.removesuffix("_std"))
    return known.unit.replace("eV/Ang/Ang/Ang", "eV/Ang^3") if known else ""


def _line(path: Path, structure: Structure, own: Values) -> dict[str, object]:
    """A line of the table: numbers, and components of tensors."""
    atoms = structure.displaced
    line: dict[str, object] = {
        "file": str(path),
        "index": structure.index,
        "structure": structure.name,
        "n_atoms": len(atoms),
    }
    for key, value in own.items():
        unit = f" ({_unit(key)})" if _unit(key) else ""
        if key == forces:
            line[f"forces_max{unit}"] = np.linalg.norm(value, axis=1).max()
        elif not _of_atoms(key, value, len(atoms)):
            line |= {f"{key}{name}{unit}": v for name, v in _components(value).items()}
    return line


def _components(value: np.ndarray) -> dict[str, float]:
    if value.ndim == 0:
        return {"": float(value)}
    if value.shape == (3, 3):  # symmetric
        return {f"_{name}": float(value[p]) for name, p in zip(_AXES, _PAIRS, strict=True)}
    if value.shape == (6, 6):  # symmetric
        return {f"_{i + 1}{j + 1}": float(value[i, j]) for i in range(6) for j in range(i, 6)}
    return {f"_{k + 1}": float(v) for k, v in enumerate(value.ravel())}


def _row(path: Path, structure: Structure, own: Values) -> Row:
    """A structure for :func:`.write_xyz`, without the labels that its file had."""
    atoms = structure.displaced.copy()
    atoms.info = {}
    data = {}
    for key, value in own.items():
        if key == forces:
            data[key] = value
        elif _of_atoms(key, value, len(atoms)):
            atoms.set_array(key, value)
        else:
            data[key] = value[None]
    units = "; ".join(f"{key}: {_unit(key)}" for key in own if _unit(key))
    origin = {"file": str(path), "index": structure.index, "structure": structure.name}
    return Row(atoms, data, {**origin, "units": units})


def _finite(own: Values) -> bool:
    return all(np.isfinite(value).all() for key, value in own.items() if key != DISTANCE)


def _summary(
    table: pd.DataFrame,
    places: Sequence[tuple[Path, Structure]],
    wrong: Sequence[tuple[Path, Structure]],
    target: Path,
) -> list[str]:
    columns = [name for name in table.columns[4:] if table[name].dtype.kind == "f"]
    rows = [
        [str(name), *(f"{v:.4g}" for v in (own.min(), own.mean(), own.max()))]
        for name, own in table[columns].items()
    ]
    lines = [*markdown_table(["property", "lowest", "mean", "highest"], rows), ""]
    if wrong:
        path, structure = wrong[0]
        lines.append(
            f"{len(wrong)} of {len(places)} structures have predictions that are NaN or infinite; "
            f"the first is structure {structure.index} of {path}"
        )
    if DISTANCE in table and (n_far := int((table[DISTANCE] > FAR).sum())):
        lines.append(
            f"{n_far} of {len(places)} structures are more than {FAR:g} times as far from the "
            f"training set as its structures from each other ({DISTANCE}): do not rely on them"
        )
    return [*lines, f"{target.absolute()}: {len(places)} structures"]
