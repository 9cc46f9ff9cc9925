"""Errors of cross tests with their uncertainty: intervals over structures, spread over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

N_BOOTSTRAP = 1000


LEVEL = 0.95


_FEWEST = 5  # structures that every model has to be tested on alike, else each on its own


_NUMBERS = ("n_values", "mae", "mse", "max_error", "mae_mean")


def error_matrix(
    runs: pd.DataFrame, errors: pd.DataFrame, by_group: bool = False, seed: int = 0
) -> pd.DataFrame:
    """Errors of each model on each test set and property, over all its components.

    All models are compared on the structures that none of them has seen; of runs with test splits
    of their own each stands for those that itself has not seen. Where there are fewer than five
    of these, each model is tested on what itself has not seen (``common`` is False).

    Args:
        runs: as :func:`.group_runs` gives them.
        errors: as :class:`.CrossTests` holds them.
        by_group: one row a temperature or amplitude instead of a test set.
        seed: of the bootstrap.

    Returns:
        A row a model, test set (and group) and property, in the database's unit: ``n``
        (structures), ``n_seeds``, ``mae`` (mean over seeds), ``low`` and ``high`` (95 %, bootstrap
        over structures), ``seed_sd`` (standard deviation over seeds, NaN for one), ``rmse``, ``r2``
        and ``r2_crystal`` (labels about the mean of their crystal, each component about its own),
        ``max_error``, ``mae_mean`` (predicting each crystal's mean in the training set),
        ``common``, ``own_splits`` (whether seeds were tested on structures of their own).
    """
    rng = np.random.default_rng(seed)
    keys = ["test_set", "group", "property"] if by_group else ["test_set", "property"]
    rows = []
    for place, own in _with_models(runs, errors).groupby(keys, sort=False):
        for model, found, common in _by_model(own):
            n = found.n_structures
            of_seeds = [one.mean("mae") for one in found.single()]
            rows.append(
                {
                    "model": model,
                    **dict(zip(keys, place, strict=True)),
                    "n": n,
                    "n_seeds": len(of_seeds),
                    "mae": found.mean("mae"),
                    **_interval(found.resampled(_drawn(n, rng))),
                    "seed_sd": _sd(of_seeds),
                    "rmse": np.mean([np.sqrt(one.mean("mse")) for one in found.single()]),
                    "r2": found.explained(np.zeros(n, dtype=int)),
                    "r2_crystal": found.explained(found.crystals),
                    "max_error": np.nanmax(found.numbers["max_error"]),
                    "mae_mean": found.mean("mae_mean"),
                    "common": common,
                    "own_splits": bool((found.weights == 0).any()),
                }
            )
    return pd.DataFrame(rows)


def ratios(runs: pd.DataFrame, errors: pd.DataFrame, reference: str, seed: int = 0) -> pd.DataFrame:
    """How many times larger errors are than those of a model trained on ``reference``.

    Only models with equally many training structures are compared, on the same structures.

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
    described = runs.drop_duplicates("model").set_index("model")
    for (test_set, key), own in _with_models(runs, errors).groupby(
        ["test_set", "property"], sort=False
    ):
        models = _models(own)
        for model in models:
            n_train, ensemble = described.loc[model, ["n_train", "ensemble"]]
            others = described.query("n_train == @n_train and ensemble == @reference").index
            for other in others:
                if ensemble == reference or other not in models:
                    continue
                shared = models[model].tested & models[other].tested
                if shared.sum() < 2:
                    continue
                both = [models[name].on(shared) for name in (model, other)]
                draw = _drawn(int(shared.sum()), rng)
                means = [one.resampled(draw, one.drawn_seeds(rng)) for one in both]
                rows.append(
                    {
                        "n_train": n_train,
                        "ensemble": ensemble,
                        "model": model,
                        "reference": other,
                        "test_set": test_set,
                        "property": key,
                        "n": int(shared.sum()),
                        "ratio": both[0].mean("mae") / both[1].mean("mae"),
                        **_interval(means[0] / means[1]),
                        "n_seeds": min(len(one.weights) for one in both),
                    }
                )
    columns = ["n_train", "ensemble", "model", "reference", "test_set", "property", "n", "ratio"]
    return pd.DataFrame(rows, columns=[*columns, "low", "high", "n_seeds"])


@dataclass(frozen=True)
class _Errors:
    """Errors of one model, a row a seed, a column a structure.

    Attributes:
        numbers: of each structure, shape=(n_seeds, n_structures) each; NaN where not tested.
        labels: of each structure, shape=(n_rows, n_components) each.
        crystals: number of each structure's crystal, shape=(n_structures,).
        tested: structures that count for this model; shape=(n_structures,).
    """

    numbers: Mapping[str, np.ndarray]
    labels: np.ndarray
    crystals: np.ndarray
    tested: np.ndarray

    @property
    def n_structures(self) -> int:
        return len(self.crystals)

    @property
    def weights(self) -> np.ndarray:
        """Values that each seed was tested on, shape=(n_seeds, n_structures)."""
        return np.nan_to_num(self.numbers["n_values"])

    def on(self, structures: np.ndarray) -> _Errors:
        """On some of the structures, shape=(n_structures,), alone."""
        numbers = {name: values[:, structures] for name, values in self.numbers.items()}
        return _Errors(
            numbers, self.labels[structures], self.crystals[structures], self.tested[structures]
        )

    def single(self) -> list[_Errors]:
        """Each seed that was tested."""
        n_seeds = len(self.weights)
        every = ({name: v[[k]] for name, v in self.numbers.items()} for k in range(n_seeds))
        found = (_Errors(own, self.labels, self.crystals, self.tested) for own in every)
        return [one for one in found if one.weights.any()]

    def mean(self, name: str) -> float:
        """Over seeds, structures and components."""
        return float(self._weighted(name).sum() / self.weights.sum())

    def _weighted(self, name: str) -> np.ndarray:
        weights = self.weights
        return np.where(weights > 0, weights * self.numbers[name], 0)

    def drawn_seeds(self, rng: np.random.Generator) -> np.ndarray:
        """How often each seed is drawn, shape=(n_bootstrap, n_seeds)."""
        n_seeds = len(self.weights)
        chosen = rng.integers(n_seeds, size=(N_BOOTSTRAP, n_seeds))
        return np.stack([(chosen == k).sum(axis=1) for k in range(n_seeds)], axis=1)

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
        """Coefficient of determination about the means of groups; NaN where labels are equal.

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
    # Numbers are looked up several times faster than texts; in the same order.
    table["digest"] = pd.factorize(table["digest"], sort=True)[0]
    return table


def _by_model(rows: pd.DataFrame) -> Iterator[tuple[str, _Errors, bool]]:
    """Each model with what it is tested on, and whether all are tested on the same."""
    models = {model: found for model, found in _models(rows).items() if found.tested.any()}
    shared = np.logical_and.reduce([found.tested for found in models.values()])
    alike = all((found.tested == shared).all() for found in models.values())
    common = bool(shared.sum() >= _FEWEST or alike)
    for model, found in models.items():
        yield model, found.on(shared if common else found.tested), common


def _models(rows: pd.DataFrame) -> dict[str, _Errors]:
    """Errors of each model on the same structures; what a seed has seen is NaN."""
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
        present = ~np.isnan(numbers["mae"][seeds])
        tested = present.any(axis=0) if own_splits else present.all(axis=0)
        of_seeds = {column: values[seeds] for column, values in numbers.items()}
        found[str(model)] = _Errors(of_seeds, labels, crystals, tested)
    return found


def _drawn(n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n structures is drawn, shape=(n_bootstrap, n)."""
    draw = rng.integers(n, size=(N_BOOTSTRAP, n)) + n * np.arange(N_BOOTSTRAP)[:, None]
    counts = np.bincount(draw.ravel(), minlength=n * N_BOOTSTRAP)
    return counts.reshape(N_BOOTSTRAP, n).astype(float)


def _interval(samples: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"low": float(low), "high": float(high)}


def _sd(values: Sequence[float] | np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
