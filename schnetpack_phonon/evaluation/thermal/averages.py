"""Properties at temperature: averages of trained models over thermal snapshots.

Atoms move classically or as quantum oscillators and electrons follow at once (the adiabatic
average of Zacharias and Giustino, Phys. Rev. B 94, 075125 (2016)); the lattice does not expand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.common.properties import PROPERTIES, band_gap, elastic_tensor
from schnetpack_phonon.ensembles.fixed import ModeEnsemble, SpecialEnsemble
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.distance import TrainingSet, far, training_set
from schnetpack_phonon.evaluation.runs import Run
from schnetpack_phonon.evaluation.test_sets import read_test_set
from schnetpack_phonon.evaluation.thermal.vibrations import vibrations
from schnetpack_phonon.models.predict import Predictor
from schnetpack_phonon.phonons.harmonic import HarmonicModel
from schnetpack_phonon.structures.crystals import Crystal
from schnetpack_phonon.structures.elasticity import hill_average

STATISTICS = ("quantum", "classical")


_DEGENERATE = 1e-3  # THz


_N_DISTANCES = 40  # snapshots whose distance from the training set is looked at


@dataclass(frozen=True)
class ThermalProperties:
    """What models say about crystals at temperature; energies in eV, as databases hold them.

    Attributes:
        averages: ``structure``, ``property``, ``temperature``, ``statistics``, ``estimate``
            (``ensemble``, ``special`` or ``labels``), ``value``, ``error`` (standard error over
            snapshots, NaN for special displacements), ``seed_sd`` (over models), ``change`` and
            ``change_sd`` (from the crystal at rest, and over models), ``n``, ``distance`` (mean,
            from the training set).
        differences: ``structure``, ``property``, ``temperature``, ``value`` (quantum minus
            classical), ``error`` (standard error of the difference), ``seed_sd``, ``n`` (snapshots
            drawn with the same random numbers); no rows at 0 K.
        static: ``structure``, ``property``, ``value``, ``seed_sd``: atoms at rest on their sites.
        modes: ``structure``, ``mode``, ``frequency`` (THz, imaginary ones negative), ``shift``
            (mean change of the gap for plus and minus one standard deviation at 300 K), ``n``
            (modes of this frequency); empty without gap.
        warnings: what lies far outside of the training.
    """

    averages: pd.DataFrame
    differences: pd.DataFrame
    static: pd.DataFrame
    modes: pd.DataFrame
    warnings: tuple[str, ...]


def thermal_properties(
    runs: Sequence[Run],
    temperatures: Sequence[float],
    n_snapshots: int = 1000,
    seed: int = 1,
    mode_temperature: float = 300.0,
) -> ThermalProperties:
    """Averages over snapshots that no model was trained on.

    Args:
        runs: models of one kind, such as seeds; the first one's crystals and phonons are taken.
        temperatures: in K.
        n_snapshots: of each crystal, temperature and statistics.
        seed: of the snapshots, not that of the training data.
        mode_temperature: of the displacements along single modes, in K.

    Raises:
        RunError: if a run has no phonons in its label store, or gives other outputs than the first.
    """
    run, predictors = runs[0], [Predictor(run.model, batch_size=16) for run in runs]
    test_set = read_test_set(run.datapath)
    train = training_set([test_set.atoms[k] for k in run.train_idx])
    every = sorted({*map(float, temperatures), float(mode_temperature)})
    crystals, models = vibrations(run, PhononEnsemble(every, n_snapshots=1, seed=seed))
    ask = _Question(predictors, run)
    averages, differences, static, modes, warnings = [], [], [], [], []
    n_averages = len(crystals) * len(temperatures) * len(STATISTICS)
    with Progress("thermal", n_averages, unit="averages") as progress:
        for crystal in crystals:
            name = crystal.composition or crystal.name
            rest = ask(crystal.supercell)
            distance = train.distances([crystal.supercell])
            if warning := far(f"{name} at rest", distance, train.species):
                warnings.append(warning)
            static += [
                {"structure": name, "property": key, "value": v.mean(), "seed_sd": _sd(v)}
                for key, v in rest.items()
            ]
            for temperature in map(float, temperatures):
                model = models[crystal.name, temperature]
                group = {"structure": name, "temperature": temperature}
                drawn = []
                for statistics in STATISTICS:
                    place = {**group, "statistics": statistics}
                    if statistics == "quantum" or temperature > 0:
                        sampled = _sampled(ask, crystal, model, place, n_snapshots, seed)
                        rows, warning = _averages(ask, train, crystal, model, place, sampled, rest)
                        averages += rows
                        warnings += [warning] if warning else []
                        drawn.append(sampled)
                    progress.update()
                if len(drawn) == len(STATISTICS):
                    differences += [{**group, **row} for row in _differences(ask.keys, *drawn)]
            if band_gap in rest:
                model = models[crystal.name, float(mode_temperature)]
                modes.append(_modes(ask, crystal, model, mode_temperature, rest[band_gap], name))
    labels = test_set.rows.join(test_set.labels)
    averages += _labels(labels[labels["group"].str.startswith("phonon,")], run)
    table = pd.concat(modes, ignore_index=True) if modes else pd.DataFrame()
    return ThermalProperties(
        pd.DataFrame(averages),
        pd.DataFrame(differences),
        pd.DataFrame(static),
        table,
        tuple(dict.fromkeys(warnings)),
    )


class _Question:
    """Asks all models for the scalar outputs that they share.

    Elastic tensors are averaged first: ``elastic_tensor`` stays a tensor.
    """

    def __init__(self, predictors: Sequence[Predictor], run: Run):
        self._predictors = predictors
        shared = set.intersection(*(set(one.outputs) for one in predictors))
        self.keys = sorted(key for key in shared if not PROPERTIES.get(key, _SCALAR).shape)
        self.tensors = [key for key in (elastic_tensor,) if key in shared]
        if not self.keys:
            raise RunError(f"the models of {run.folder} and the others share no scalar output")

    def __call__(self, structure: Atoms) -> dict[str, np.ndarray]:
        """Output -> value of each model, shape=(n_models,); scalar outputs only."""
        return {k: v[:, 0] for k, v in self.all([structure]).items() if v.ndim == 2}

    def all(self, structures: Sequence[Atoms]) -> dict[str, np.ndarray]:
        """Output -> shape=(n_models, n_structures, ...)."""
        found = [one(structures) for one in self._predictors]
        return {
            key: np.array([[np.asarray(row[key], float) for row in rows] for rows in found])
            for key in [*self.keys, *self.tensors]
        }


_SCALAR = PROPERTIES[band_gap]


@dataclass(frozen=True)
class _Sampled:
    """Snapshots, their indices in the random stream, and output -> what each model says of each."""

    atoms: list[Atoms]
    index: np.ndarray
    values: dict[str, np.ndarray]


def _sampled(
    ask: _Question,
    crystal: Crystal,
    model: HarmonicModel,
    place: dict[str, Any],
    n_snapshots: int,
    seed: int,
) -> _Sampled:
    temperature, statistics = place["temperature"], place["statistics"]
    ensemble = PhononEnsemble([temperature], statistics, n_snapshots=n_snapshots, seed=seed)
    stream = (s for s in ensemble.snapshots(crystal, model, temperature) if s is not None)
    snapshots = list(islice(stream, n_snapshots))
    atoms = [snapshot.atoms for snapshot in snapshots]
    return _Sampled(atoms, np.array([s.index for s in snapshots]), ask.all(atoms))


def _averages(
    ask: _Question,
    train: TrainingSet,
    crystal: Crystal,
    model: HarmonicModel,
    place: dict[str, Any],
    sampled: _Sampled,
    rest: dict[str, np.ndarray],
) -> tuple[list[dict[str, object]], str]:
    """Rows of one crystal, temperature and statistics, and a warning or nothing."""
    temperature, statistics = place["temperature"], place["statistics"]
    special = SpecialEnsemble([temperature], statistics)
    pair = [s.atoms for s in special.snapshots(crystal, model, temperature)]
    distances = train.distances(sampled.atoms[:_N_DISTANCES])
    rows = []
    mirrored = ask.all(pair)
    for key, values in sampled.values.items():
        if key in ask.tensors:
            rows += _moduli(values, place)
            continue
        mean = values.mean(axis=0)
        common = {**place, "property": key, "distance": distances.mean()}
        rows.append(
            {
                **common,
                "estimate": "ensemble",
                "value": mean.mean(),
                "error": mean.std(ddof=1) / np.sqrt(len(mean)),
                "seed_sd": _sd(values.mean(axis=1)),
                **_change(values.mean(axis=1), rest[key]),
                "n": len(mean),
            }
        )
        two = mirrored[key].mean(axis=1)
        rows.append(
            {
                **common,
                "estimate": "special",
                "value": two.mean(),
                "error": np.nan,
                "seed_sd": _sd(two),
                **_change(two, rest[key]),
                "n": 2,
            }
        )
    what = f"{place['structure']} at {temperature:g} K, {statistics}"
    return rows, far(what, distances, train.species)


def _differences(
    keys: Sequence[str], quantum: _Sampled, classical: _Sampled
) -> list[dict[str, object]]:
    """Of snapshots drawn with the same random numbers, so errors common to both cancel."""
    _, one, other = np.intersect1d(quantum.index, classical.index, return_indices=True)
    rows: list[dict[str, object]] = []
    for key in keys:
        pairs = quantum.values[key][:, one] - classical.values[key][:, other]
        mean = pairs.mean(axis=0)
        error = mean.std(ddof=1) / np.sqrt(len(mean)) if len(mean) > 1 else np.nan
        found = {"property": key, "value": mean.mean(), "error": error}
        rows.append({**found, "seed_sd": _sd(pairs.mean(axis=1)), "n": len(mean)})
    return rows


def _moduli(tensors: np.ndarray, place: dict[str, object]) -> list[dict[str, object]]:
    """Hill's moduli of the mean tensor in GPa, errors by bootstrap over snapshots."""
    rng = np.random.default_rng(0)
    mean = tensors.mean(axis=0)
    draws = mean[rng.integers(len(mean), size=(200, len(mean)))].mean(axis=1)
    rows = []
    for name in ("bulk", "shear"):
        samples = np.array([getattr(hill_average(draw), name) for draw in draws], float)
        by_model = [float(getattr(hill_average(t.mean(axis=0)), name)) for t in tensors]
        rows.append(
            {
                **place,
                "property": f"{name} modulus",
                "estimate": "ensemble",
                "value": float(getattr(hill_average(mean.mean(axis=0)), name)),
                "error": samples.std(),
                "seed_sd": _sd(np.array(by_model)),
                "n": len(mean),
                "distance": np.nan,
            }
        )
    return rows


def _modes(
    ask: _Question,
    crystal: Crystal,
    model: HarmonicModel,
    temperature: float,
    rest: np.ndarray,
    name: str,
) -> pd.DataFrame:
    """Change of the gap along each mode; modes of one frequency are averaged."""
    moving = np.flatnonzero(model.mode_amplitudes(temperature) > 0).tolist()
    ensemble = ModeEnsemble([-1, 1], temperature, moving)
    atoms = [s.atoms for q in (-1.0, 1.0) for s in ensemble.snapshots(crystal, model, q)]
    gaps = ask.all(atoms)[band_gap].mean(axis=0).reshape(2, len(moving)).mean(axis=0)
    frequencies = model.frequencies[moving]
    sets = np.concatenate([[0], np.cumsum(np.diff(frequencies) > _DEGENERATE)])
    table = pd.DataFrame(
        {"set": sets, "mode": moving, "frequency": frequencies, "shift": gaps - rest.mean()}
    )
    grouped = table.groupby("set")
    found = grouped.agg(mode=("mode", "first"), frequency=("frequency", "mean"))
    found["shift"], found["n"] = grouped["shift"].mean(), grouped.size()
    return found.reset_index(drop=True).assign(structure=name)


def _labels(rows: pd.DataFrame, run: Run) -> list[dict[str, object]]:
    """Means of labels by crystal and temperature."""
    found = []
    for (name, temperature), own in rows.groupby(["structure", "parameter"]):
        for key in sorted(set(run.targets.values()) & set(own)):
            if PROPERTIES.get(key, _SCALAR).shape:
                continue
            values = own[key].dropna()
            if len(values) < 2:
                continue
            found.append(
                {
                    **{"structure": name, "temperature": temperature, "statistics": "quantum"},
                    **{"property": key, "estimate": "labels", "value": values.mean()},
                    "error": values.std() / np.sqrt(len(values)),
                    **{"seed_sd": np.nan, "n": len(values), "distance": np.nan},
                }
            )
    return found


def _change(values: np.ndarray, rest: np.ndarray) -> dict[str, float]:
    """From the crystal at rest, both as each model gives them."""
    return {"change": float((values - rest).mean()), "change_sd": _sd(values - rest)}


def _sd(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
