"""Errors of cross tests with their uncertainty: intervals over structures, spread over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

N_BOOTSTRAP = 1000
LEVEL = 0.95
_NEEDED = ["run", "structure", "digest", "label", "prediction", "mean"]
_FEWEST = 5  # structures that every model has to be tested on alike, else each on its own


def error_matrix(
    runs: pd.DataFrame, predictions: pd.DataFrame, by_group: bool = False, seed: int = 0
) -> pd.DataFrame:
    """Errors of each model on each test set and property.

    All models are compared on the structures that none of them has seen. Where there are fewer
    than five of these, each is tested on what itself has not seen (``common`` is False).

    Args:
        runs: as :func:`.run_groups.group_runs` gives them.
        predictions: as :class:`.CrossTests` holds them.
        by_group: one row a temperature or amplitude instead of a test set.
        seed: of the bootstrap.

    Returns:
        A row a model, test set (and group) and property, in the database's unit: ``n``
        (structures), ``n_seeds``, ``mae`` (mean over seeds), ``low`` and ``high`` (95 %, bootstrap
        over structures), ``seed_sd`` (standard deviation over seeds, NaN for one), ``rmse``, ``r2``
        and ``r2_crystal`` (labels about the mean of their crystal), ``max_error``, ``mae_mean``
        (predicting each crystal's mean in the training set), ``common``.
    """
    rng = np.random.default_rng(seed)
    keys = ["test_set", "group", "property"] if by_group else ["test_set", "property"]
    rows = []
    table = predictions[[*keys, *_NEEDED]].merge(_names(runs), on="run")
    # Numbers are looked up several times faster than texts; in the same order.
    table["digest"] = pd.factorize(table["digest"], sort=True)[0]
    for place, own in table.groupby(keys, sort=False):
        for model, errors, common in _by_model(own):
            found = {
                "model": model,
                **dict(zip(keys, place, strict=True)),
                "n": errors.labels.size,
                "n_seeds": len(errors.absolute),
                "mae": errors.absolute.mean(),
                **_interval(errors.resampled(rng)),
                "seed_sd": _sd(errors.absolute.mean(axis=1)),
                "rmse": np.sqrt((errors.absolute**2).mean(axis=1)).mean(),
                "r2": errors.explained(np.zeros(errors.labels.size, dtype=int)),
                "r2_crystal": errors.explained(errors.crystals),
                "max_error": errors.absolute.max(),
                "mae_mean": errors.of_mean.mean(),
                "common": common,
            }
            rows.append(found)
    return pd.DataFrame(rows)


def ratios(
    runs: pd.DataFrame, predictions: pd.DataFrame, reference: str, seed: int = 0
) -> pd.DataFrame:
    """How many times larger errors are than those of a model trained on ``reference``.

    Only models with equally many training structures are compared, on the same structures.

    Args:
        runs: as for :func:`error_matrix`.
        predictions: as for :func:`error_matrix`.
        reference: ensemble.
        seed: of the bootstrap, which draws structures and, in each model, seeds.

    Returns:
        ``n_train``, ``ensemble``, ``model``, ``reference``, ``test_set``, ``property``, ``n``,
        ``ratio`` (of mean absolute errors), ``low``, ``high`` (95 %), ``n_seeds`` (the smaller).
    """
    rng = np.random.default_rng(seed)
    rows = []
    table = predictions.merge(_names(runs), on="run")
    described = runs.drop_duplicates("model").set_index("model")
    for (test_set, key), own in table.groupby(["test_set", "property"], sort=False):
        pivots = _pivots(own)
        for model in pivots:
            n_train, ensemble = described.loc[model, ["n_train", "ensemble"]]
            others = described.query("n_train == @n_train and ensemble == @reference").index
            for other in others:
                if ensemble == reference or other not in pivots:
                    continue
                both = pivots[model].dropna(axis=1), pivots[other].dropna(axis=1)
                shared = both[0].columns.intersection(both[1].columns)
                if len(shared) < 2:
                    continue
                draw = rng.integers(len(shared), size=(N_BOOTSTRAP, len(shared)))
                means = [
                    _resampled(pivot[shared].to_numpy(), draw, rng, seeds=True) for pivot in both
                ]
                rows.append(
                    {
                        "n_train": n_train,
                        "ensemble": ensemble,
                        "model": model,
                        "reference": other,
                        "test_set": test_set,
                        "property": key,
                        "n": len(shared),
                        "ratio": np.divide(*(pivot[shared].to_numpy().mean() for pivot in both)),
                        **_interval(means[0] / means[1]),
                        "n_seeds": min(map(len, both)),
                    }
                )
    columns = ["n_train", "ensemble", "model", "reference", "test_set", "property", "n", "ratio"]
    return pd.DataFrame(rows, columns=[*columns, "low", "high", "n_seeds"])


class _Errors:
    """Errors of one model, a row a seed.

    Attributes:
        absolute: shape=(n_seeds, n_structures).
        labels: shape=(n_structures,).
        crystals: number of each structure's crystal, shape=(n_structures,).
        of_mean: absolute errors of predicting the mean; shape as ``absolute``.
    """

    def __init__(self, rows: pd.DataFrame):
        seeds = [
            own.drop_duplicates("digest").set_index("digest") for _, own in rows.groupby("run")
        ]
        shared = sorted(set.intersection(*(set(own.index) for own in seeds)))
        # Seeds with splits of their own are tested on structures of their own.
        n = min(map(len, seeds))
        picked = [own.loc[shared] if shared else own.iloc[:n] for own in seeds]
        self.absolute = np.array([(o["prediction"] - o["label"]).abs() for o in picked])
        self.of_mean = np.array([(o["mean"] - o["label"]).abs() for o in picked])
        self.labels = picked[0]["label"].to_numpy()
        self.crystals = pd.factorize(picked[0]["structure"])[0]

    def resampled(self, rng: np.random.Generator) -> np.ndarray:
        n = self.absolute.shape[1]
        draw = rng.integers(n, size=(N_BOOTSTRAP, n))
        return _resampled(self.absolute, draw, rng, seeds=False)

    def explained(self, groups: np.ndarray) -> float:
        """Coefficient of determination about the means of groups; NaN where labels are equal."""
        means = np.bincount(groups, self.labels) / np.maximum(np.bincount(groups), 1)
        variance = ((self.labels - means[groups]) ** 2).mean()
        if variance <= (1e-12 * np.abs(self.labels).max()) ** 2:
            return np.nan
        return float(1 - (self.absolute**2).mean() / variance)


def _by_model(rows: pd.DataFrame) -> Iterator[tuple[str, _Errors, bool]]:
    sets = [set(own["digest"]) for _, own in rows.groupby("run")]
    shared = set.intersection(*sets)
    common = len(shared) >= _FEWEST or all(one == shared for one in sets)
    for model, own in rows.groupby("model", sort=False):
        yield str(model), _Errors(own[own["digest"].isin(shared)] if common else own), common


def _pivots(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Absolute errors by model, a row a run, a column a structure."""
    rows = rows.assign(error=(rows["prediction"] - rows["label"]).abs())
    return {
        str(model): own.pivot_table(index="run", columns="digest", values="error")
        for model, own in rows.groupby("model", sort=False)
    }


def _names(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[["run", "model"]]


def _resampled(
    errors: np.ndarray, draw: np.ndarray, rng: np.random.Generator, seeds: bool
) -> np.ndarray:
    """Mean errors of bootstrap samples, shape=(n_bootstrap,).

    Args:
        errors: shape=(n_seeds, n_structures).
        draw: indices of structures, shape=(n_bootstrap, n_structures).
        rng: draws seeds.
        seeds: whether seeds are drawn, too.
    """
    if not seeds:
        return errors.mean(axis=0)[draw].mean(axis=1)
    chosen = rng.integers(len(errors), size=(len(draw), len(errors)))
    weights = np.stack([(chosen == k).mean(axis=1) for k in range(len(errors))], axis=1)
    return np.einsum("bs,sb->b", weights, errors[:, draw].mean(axis=2))


def _interval(samples: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"low": float(low), "high": float(high)}


def _sd(values: Sequence[float] | np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
