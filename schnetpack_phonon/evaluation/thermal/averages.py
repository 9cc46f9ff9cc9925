"""Properties at temperature: averages of trained models over thermal snapshots.

Atoms move as classical or as quantum oscillators and electrons follow adiabatically (Zacharias and
Giustino, Phys. Rev. B 94, 075125 (2016)); there is no thermal expansion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms

from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.common.properties import band_gap, elastic_tensor, property_of
from schnetpack_phonon.common.random import drawn
from schnetpack_phonon.data.database import read_metadata
from schnetpack_phonon.data.reading import read_provenance
from schnetpack_phonon.ensembles.active.distance import far, training_set
from schnetpack_phonon.ensembles.base import Snapshot
from schnetpack_phonon.ensembles.fixed import ModeEnsemble, SpecialEnsemble
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.runs import Run
from schnetpack_phonon.evaluation.test_sets import read_test_set
from schnetpack_phonon.evaluation.thermal.at_rest import (
    LABELLED,
    AtRest,
    crystal_at_rest,
)
from schnetpack_phonon.evaluation.thermal.models import Models
from schnetpack_phonon.evaluation.thermal.vibrations import vibrations
from schnetpack_phonon.phonons.harmonic import HarmonicModel
from schnetpack_phonon.structures.crystals import Crystal
from schnetpack_phonon.structures.elasticity import hill_average

STATISTICS = ("quantum", "classical")
_DEGENERATE = 1e-3  # THz
_N_DISTANCES = 40  # snapshots whose distance from the training set is computed


@dataclass(frozen=True)
class ThermalProperties:
    """Predictions for crystals at temperature, in database units.

    Attributes:
        averages: ``structure``, ``property``, ``temperature`` (K), ``statistics``, ``estimate``
            (``ensemble``, ``special`` or ``labels``), ``value``, ``error`` (standard error over
            snapshots, NaN for special displacements), ``seed_sd`` (over models), ``change`` and
            ``change_sd`` (from the crystal at rest, and over models), ``at_rest`` (``labelled``,
            or ``predicted`` where the database has no label of the crystal at rest), ``n``,
            ``distance`` (mean, from the training set), ``unit``.
        differences: ``structure``, ``property``, ``temperature``, ``value`` (quantum minus
            classical), ``error`` (standard error of the difference), ``seed_sd``, ``n`` (snapshots
            drawn with the same random numbers); no rows at 0 K.
        static: ``structure``, ``property``, ``at_rest`` (``labelled`` or ``predicted``),
            ``value``, ``seed_sd``: atoms at rest on their sites.
        modes: ``structure``, ``mode``, ``frequency`` (THz, imaginary ones negative), ``shift``
            (mean change of the predicted gap for plus and minus one standard deviation at 300 K),
            ``n`` (modes of this frequency); empty without gap.
        warnings: crystals and temperatures far outside of the training set; labels left out.
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
        runs: models of one kind, such as seeds; crystals and phonons are those of the first.
        temperatures: in K.
        n_snapshots: of each crystal, temperature and statistics.
        seed: of the snapshots, not that of the training data.
        mode_temperature: of the displacements along single modes, in K.

    Raises:
        RunError: if a run has no phonons in its label store, its outputs differ from those of
            the first, or a prediction is NaN or infinite.
    """
    run = runs[0]
    models = Models(runs)
    test_set = read_test_set(run.datapath)
    train = training_set([test_set.atoms[k] for k in run.train_idx])
    every = sorted({*map(float, temperatures), float(mode_temperature)})
    crystals, vibrating = vibrations(run, PhononEnsemble(every, n_snapshots=1, seed=seed))
    at_rest = read_metadata(run.datapath).get("ideal_labels", {})  # former versions have none
    averages, differences, static, modes, warnings = [], [], [], [], []
    n_averages = len(crystals) * len(temperatures) * len(STATISTICS)
    with Progress("thermal", n_averages, unit="averages") as progress:
        for crystal in crystals:
            name = crystal.composition or crystal.name
            rest = crystal_at_rest(models, crystal, at_rest.get(crystal.name, {}))
            static += [{"structure": name, **row} for row in rest.rows()]
            distances = train.distances([crystal.supercell])
            warnings.append(far(f"{name} at rest", distances, train.species))
            for temperature in map(float, temperatures):
                harmonic = vibrating[crystal.name, temperature]
                at = crystal, harmonic, temperature
                place = {"structure": name, "temperature": temperature}
                of_statistics = []
                for statistics in STATISTICS:
                    if statistics == "quantum" or temperature > 0:
                        how = [temperature], statistics
                        ensemble = PhononEnsemble(*how, n_snapshots=n_snapshots, seed=seed)
                        sampled = _sampled(models, ensemble.snapshots(*at), n_snapshots)
                        special = SpecialEnsemble(*how).snapshots(*at)
                        pair = models([snapshot.atoms for snapshot in special])
                        distances = train.distances(sampled.atoms[:_N_DISTANCES])
                        here = {**place, "statistics": statistics}
                        mean = distances.mean()
                        averages += _averages(models, here, mean, sampled.values, pair, rest)
                        what = f"{name} at {temperature:g} K, {statistics}"
                        warnings.append(far(what, distances, train.species))
                        of_statistics.append(sampled)
                    progress.update()
                if len(of_statistics) == len(STATISTICS):
                    differences += [
                        {**place, **row} for row in _differences(models.keys, *of_statistics)
                    ]
            if band_gap in models.keys:
                harmonic = vibrating[crystal.name, float(mode_temperature)]
                gap = rest.predicted[band_gap].mean()
                shifts = _modes(models, crystal, harmonic, mode_temperature, gap)
                modes.append(shifts.assign(structure=name))
    labels = test_set.rows.join(test_set.labels)
    statistics_of_labels = _statistics(run)
    if len(statistics_of_labels) == 1:
        phonon = (read_provenance(run.datapath)["kind"] == "phonon").to_numpy()
        averages += _labels(labels[phonon], run, pd.DataFrame(static), *statistics_of_labels)
    elif statistics_of_labels:
        warnings.append("labels are of quantum and classical snapshots and are left out")
    return ThermalProperties(
        pd.DataFrame(averages),
        pd.DataFrame(differences),
        pd.DataFrame(static),
        pd.concat(modes, ignore_index=True) if modes else pd.DataFrame(),
        tuple(dict.fromkeys(filter(None, warnings))),
    )


@dataclass(frozen=True)
class _Sampled:
    """Snapshots, their indices in the random stream, and output -> prediction of each model."""

    atoms: list[Atoms]
    index: np.ndarray
    values: dict[str, np.ndarray]


def _sampled(models: Models, stream: Iterable[Snapshot | None], n_snapshots: int) -> _Sampled:
    snapshots = list(islice(filter(None, stream), n_snapshots))
    atoms = [snapshot.atoms for snapshot in snapshots]
    return _Sampled(atoms, np.array([s.index for s in snapshots]), models(atoms))


def _averages(
    models: Models,
    place: dict[str, Any],
    distance: float,
    sampled: dict[str, np.ndarray],
    special: dict[str, np.ndarray],
    rest: AtRest,
) -> list[dict[str, Any]]:
    """Rows of one crystal, temperature and statistics."""
    rows = []
    for key in models.keys:
        for estimate, values in (("ensemble", sampled[key]), ("special", special[key])):
            mean, by_model = values.mean(axis=0), values.mean(axis=1)
            change = by_model - rest.zero(key)
            rows.append(
                {
                    **place,
                    "property": key,
                    "distance": distance,
                    "estimate": estimate,
                    "value": mean.mean(),
                    "error": _standard_error(mean) if estimate == "ensemble" else np.nan,
                    "seed_sd": _sd(by_model),
                    "change": change.mean(),
                    "change_sd": _sd(change),
                    "at_rest": rest.source(key),
                    "n": len(mean),
                    "unit": property_of(key).unit,
                }
            )
    for key in models.tensors:
        rows += _moduli(sampled[key], place)
    return rows


def _differences(
    keys: Sequence[str], quantum: _Sampled, classical: _Sampled
) -> list[dict[str, Any]]:
    """Of snapshots drawn with the same random numbers, so that their common errors cancel."""
    _, one, other = np.intersect1d(quantum.index, classical.index, return_indices=True)
    rows = []
    for key in keys:
        pairs = quantum.values[key][:, one] - classical.values[key][:, other]
        mean = pairs.mean(axis=0)
        found = {"property": key, "value": mean.mean(), "error": _standard_error(mean)}
        rows.append({**found, "seed_sd": _sd(pairs.mean(axis=1)), "n": len(mean)})
    return rows


def _moduli(tensors: np.ndarray, place: dict[str, Any]) -> list[dict[str, Any]]:
    """Hill's moduli of the mean tensor in GPa, with errors by bootstrap over snapshots."""
    mean = tensors.mean(axis=0)
    weights = drawn(len(mean), np.random.default_rng(0), n_samples=200) / len(mean)
    of_samples = hill_average(np.tensordot(weights, mean, axes=1))
    of_models = hill_average(tensors.mean(axis=1))
    return [
        {
            **place,
            "property": f"{name} modulus",
            "estimate": "ensemble",
            "value": float(getattr(hill_average(mean.mean(axis=0)), name)),
            "error": getattr(of_samples, name).std(),
            "seed_sd": _sd(getattr(of_models, name)),
            "n": len(mean),
            "unit": property_of(elastic_tensor).unit,
        }
        for name in ("bulk", "shear")
    ]


def _modes(
    models: Models, crystal: Crystal, harmonic: HarmonicModel, temperature: float, rest: float
) -> pd.DataFrame:
    """Change of the gap along each mode; the mean of modes of one frequency."""
    moving = np.flatnonzero(harmonic.mode_amplitudes(temperature) > 0).tolist()
    ensemble = ModeEnsemble([-1, 1], temperature, moving)
    atoms = [s.atoms for q in (-1.0, 1.0) for s in ensemble.snapshots(crystal, harmonic, q)]
    gaps = models(atoms)[band_gap].mean(axis=0).reshape(2, len(moving)).mean(axis=0)
    frequencies = harmonic.frequencies[moving]
    sets = np.concatenate([[0], np.cumsum(np.diff(frequencies) > _DEGENERATE)])
    table = pd.DataFrame(
        {"set": sets, "mode": moving, "frequency": frequencies, "shift": gaps - rest, "n": 1}
    )
    how = {"mode": "first", "frequency": "mean", "shift": "mean", "n": "sum"}
    return table.groupby("set").agg(how).reset_index(drop=True)


def _statistics(run: Run) -> set[str]:
    """Of the phonon ensembles in the database of a run; its rows do not say theirs."""
    settings = read_metadata(run.datapath)["settings"]["ensemble"]
    members = settings.get("ensembles", {"": settings}).values()
    return {one["statistics"] for one in members if one["kind"] == "phonon"}


def _labels(
    rows: pd.DataFrame, run: Run, static: pd.DataFrame, statistics: str
) -> list[dict[str, Any]]:
    """Means of labels by crystal and temperature; changes from labels of the crystal at rest."""
    rest = static[static["at_rest"] == LABELLED].set_index(["structure", "property"])["value"]
    found = []
    for (name, temperature), own in rows.groupby(["structure", "parameter"]):
        for key in sorted(set(run.targets.values()) & set(own)):
            values = own[key].dropna()
            if property_of(key).shape or len(values) < 2:
                continue
            found.append(
                {
                    "structure": name,
                    "temperature": temperature,
                    "statistics": statistics,
                    "property": key,
                    "estimate": "labels",
                    "value": values.mean(),
                    "error": _standard_error(values),
                    "change": values.mean() - rest.get((name, key), np.nan),
                    "at_rest": LABELLED if (name, key) in rest else None,
                    "n": len(values),
                    "unit": property_of(key).unit,
                }
            )
    return found


def _standard_error(values: np.ndarray | pd.Series) -> float:
    return _sd(values) / np.sqrt(len(values))


def _sd(values: np.ndarray | pd.Series) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
