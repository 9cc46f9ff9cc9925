"""Errors of cross tests with their uncertainty: intervals over structures, spread over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pandas as pd

from schnetpack_phonon.common.random import drawn, interval

_FEWEST = 5  # common structures; with fewer of them each model is tested on its own ones
_NUMBERS = ("n_values", "mae", "mse", "max_error", "mae_mean")


def error_matrix(
    runs: pd.DataFrame, errors: pd.DataFrame, by_group: bool = False, seed: int = 0
) -> pd.DataFrame:
    """Errors of each model on each test set and property, over all components.

    All models are compared on the structures that none of them has seen; runs with their own test
    splits each count on those that they have not seen. If there are fewer than five of them, each
    model is tested on all that it has not seen itself (``common`` is False).

    Args:
        runs: as :func:`.group_runs` gives them.
        errors: as :class:`.CrossTests` holds them.
        by_group: a row a temperature or amplitude instead of a test set.
        seed: of the bootstrap.

    Returns:
        A row a model, test set (and group) and property, in the database's unit: ``n``
        (structures), ``n_invalid`` (those for which a seed has no finite prediction: all errors of
        the model are NaN if there is one), ``n_seeds``, ``mae`` (mean over seeds), ``low`` and
        ``high`` (95 %, bootstrap over structures), ``seed_sd`` (standard deviation over seeds, NaN
        for one), ``rmse``, ``r2`` and ``r2_crystal`` (labels about the mean of their crystal, each
        component about its own), ``max_error``, ``mae_mean`` (predicting each crystal's mean in
        the training set), ``common``, ``own_splits`` (whether seeds were tested on different
        structures).
    """
    rng = np.random.default_rng(seed)
    keys = ["test_set", "group", "property"] if by_group else ["test_set", "property"]
    rows = []
    table = _with_models(runs, errors)
    if by_group:  # from cold to warm in each test set, whatever the order in the file
        order = pd.factorize(table["test_set"])[0]
        table = table.iloc[np.lexsort([table["parameter"].to_numpy(), order])]
    for place, own in table.groupby(keys, sort=False):
        for model, found, common in _by_model(own):
            n, of_seeds = len(found.crystals), found.means("mae")
            low, high = interval(found.resampled(drawn(n, rng)))
            rows.append(
                {
                    "model": model,
                    **dict(zip(keys, place, strict=True)),
                    "n": n,
                    "n_invalid": int(found.invalid.sum()),
                    "n_seeds": len(of_seeds),
                    "mae": found.mean("mae"),
                    "low": low,
                    "high": high,
                    "seed_sd": np.std(of_seeds, ddof=1) if len(of_seeds) > 1 else np.nan,
                    "rmse": np.sqrt(found.means("mse")).mean(),
                    "r2": found.explained(np.zeros(n, dtype=int)),
                    "r2_crystal": found.explained(found.crystals),
                    "max_error": found.numbers["max_error"][found.weights > 0].max(),
                    "mae_mean": found.mean("mae_mean"),
                    "common": common,
                    "own_splits": bool((found.weights == 0).any()),
                }
            )
    return pd.DataFrame(rows)


def ratios(runs: pd.DataFrame, errors: pd.DataFrame, reference: str, seed: int = 0) -> pd.DataFrame:
    """Ratios of errors to those of models trained on ``reference``.

    Only models with equally many training structures are compared, on the same structures; not
    those with a prediction that is NaN or infinite.

    Args:
        runs: as for :func:`error_matrix`.
        errors: as for :func:`error_matrix`.
        reference: ensemble.
        seed: of the bootstrap, which draws structures and, in each model, seeds.

    Returns:
        ``n_train``, ``ensemble``, ``model``, ``reference``, ``test_set``, ``property``, ``n``,
        ``ratio`` (of mean absolute errors), ``low``, ``high`` (95 %), ``n_seeds`` (the smaller).
    """
    rng = np.random.default_rng(seed)
    rows = []
    described = {run["model"]: run for run in runs.to_dict("records")}
    for (test_set, key), own in _with_models(runs, errors).groupby(
        ["test_set", "property"], sort=False
    ):
        models = _models(own)
        for pair in permutations(models, 2):
            one, other = (described[name] for name in pair)
            if one["ensemble"] == reference or other["ensemble"] != reference:
                continue
            shared = models[pair[0]].tested & models[pair[1]].tested
            if one["n_train"] != other["n_train"] or shared.sum() < 2:
                continue
            both = [models[name].on(shared) for name in pair]
            if any(found.invalid.any() for found in both):
                continue
            draw = drawn(int(shared.sum()), rng)
            means = [found.resampled(draw, drawn(len(found.weights), rng)) for found in both]
            low, high = interval(means[0] / means[1])
            rows.append(
                {
                    "n_train": one["n_train"],
                    "ensemble": one["ensemble"],
                    "model": one["model"],
                    "reference": other["model"],
                    "test_set": test_set,
                    "property": key,
                    "n": int(shared.sum()),
                    "ratio": both[0].mean("mae") / both[1].mean("mae"),
                    "low": low,
                    "high": high,
                    "n_seeds": min(len(found.weights) for found in both),
                }
            )
    columns = ["n_train", "ensemble", "model", "reference", "test_set", "property", "n", "ratio"]
    return pd.DataFrame(rows, columns=[*columns, "low", "high", "n_seeds"])


@dataclass(frozen=True)
class _Errors:
    """Errors of one model, a row a seed, a column a structure.

    Attributes:
        numbers: of each structure, shape=(n_seeds, n_structures) each; ``n_values`` is NaN where
            not tested, errors also where a prediction is not finite.
        labels: of each structure, shape=(n_rows, n_components) each.
        crystals: number of each structure's crystal, shape=(n_structures,).
        tested: structures that count for this model; shape=(n_structures,).
    """

    numbers: Mapping[str, np.ndarray]
    labels: np.ndarray
    crystals: np.ndarray
    tested: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Values that each seed was tested on, shape=(n_seeds, n_structures)."""
        return np.nan_to_num(self.numbers["n_values"])

    @property
    def invalid(self) -> np.ndarray:
        """Structures for which a seed has no finite prediction, shape=(n_structures,)."""
        return ((self.weights > 0) & np.isnan(self.numbers["mae"])).any(axis=0)

    def on(self, structures: np.ndarray) -> _Errors:
        """On some of the structures, shape=(n_structures,), alone."""
        numbers = {name: values[:, structures] for name, values in self.numbers.items()}
        return _Errors(numbers, *(x[structures] for x in (self.labels, self.crystals, self.tested)))

    def mean(self, name: str) -> float:
        """Over seeds, structures and components."""
        return float(self._weighted(name).sum() / self.weights.sum())

    def means(self, name: str) -> np.ndarray:
        """As :meth:`mean`, of each seed that was tested."""
        weights = self.weights
        tested = weights.any(axis=1)
        return self._weighted(name)[tested].sum(axis=1) / weights[tested].sum(axis=1)

    def _weighted(self, name: str) -> np.ndarray:
        weights = self.weights
        return np.where(weights > 0, weights * self.numbers[name], 0)

    def resampled(self, draw: np.ndarray, seeds: np.ndarray | None = None) -> np.ndarray:
        """Mean absolute errors of bootstrap samples, shape=(n_bootstrap,).

        Args:
            draw: how often each structure is drawn, shape=(n_bootstrap, n_structures).
            seeds: how often each seed is; once each by default.
        """
        sums, sizes = draw @ self._weighted("mae").T, draw @ self.weights.T
        if seeds is not None:
            sums, sizes = sums * seeds, sizes * seeds
        return sums.sum(axis=1) / sizes.sum(axis=1)

    def explained(self, groups: np.ndarray) -> float:
        """Coefficient of determination about the means of groups; NaN if labels are equal.

        Args:
            groups: number of each structure's group, shape=(n_structures,).
        """
        rows = np.concatenate([*self.labels])
        counts = [len(one) for one in self.labels]
        group = np.repeat(groups, counts)
        weight = np.repeat((self.weights > 0).sum(axis=0), counts)[:, None]
        squares = 0.0
        for k in np.unique(group):
            own, w = rows[group == k], weight[group == k]
            squares += (w * (own - (w * own).sum(axis=0) / w.sum()) ** 2).sum()
        variance = squares / (weight.sum() * rows.shape[1])
        if variance <= (1e-12 * np.abs(rows).max()) ** 2:
            return np.nan
        return float(1 - self.mean("mse") / variance)


def _with_models(runs: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    table = errors.merge(runs[["run", "model", "own_splits"]], on="run")
    # Numbers are looked up several times faster than texts; they have the same order.
    table["digest"] = pd.factorize(table["digest"], sort=True)[0]
    return table


def _by_model(rows: pd.DataFrame) -> Iterator[tuple[str, _Errors, bool]]:
    """Each model with its errors, and whether all models are tested on the same structures."""
    models = {model: found for model, found in _models(rows).items() if found.tested.any()}
    shared = np.logical_and.reduce([found.tested for found in models.values()])
    alike = all((found.tested == shared).all() for found in models.values())
    common = bool(shared.sum() >= _FEWEST or alike)
    for model, found in models.items():
        yield model, found.on(shared if common else found.tested), common


def _models(rows: pd.DataFrame) -> dict[str, _Errors]:
    """Errors of each model on the same structures; NaN where a seed has seen them."""
    first = rows.drop_duplicates("digest").sort_values("digest")
    labels, crystals = first["label"].to_numpy(), pd.factorize(first["structure"])[0]
    place = np.searchsorted(first["digest"].to_numpy(), rows["digest"].to_numpy())
    run, names = pd.factorize(rows["run"], sort=True)
    numbers = {}
    for column in _NUMBERS:
        numbers[column] = np.full((len(names), len(first)), np.nan)
        # Of copies of a structure the first counts.
        numbers[column][run[::-1], place[::-1]] = rows[column].to_numpy()[::-1]
    found = {}
    for (model, own_splits), own in rows.groupby(["model", "own_splits"], sort=False):
        seeds = np.isin(names, own["run"].unique())
        present = ~np.isnan(numbers["n_values"][seeds])
        tested = present.any(axis=0) if own_splits else present.all(axis=0)
        of_seeds = {column: values[seeds] for column, values in numbers.items()}
        found[str(model)] = _Errors(of_seeds, labels, crystals, tested)
    return found
