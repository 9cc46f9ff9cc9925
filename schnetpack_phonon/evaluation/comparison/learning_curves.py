"""Error against number of labels: power laws, where they cross, labels for a given error.

The law is E(N) = a N^-b (Cortes et al., NIPS 1993; Hestness et al., arXiv:1712.00409), fitted to
the logarithms of the errors of single runs.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from schnetpack_phonon.common.random import N_BOOTSTRAP, interval
from schnetpack_phonon.evaluation.comparison.run_groups import model_name
from schnetpack_phonon.evaluation.comparison.uncertainty import error_matrix

_FEWEST_SIZES = 3  # two points always lie on a line
_PLACE = ["test_set", "property"]


def learning_curves(runs: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """Errors of each run against its number of training structures.

    Args:
        runs: as :func:`.group_runs` gives them; only ensembles with several numbers of labels, at
            the same other settings, are taken.
        errors: as :class:`.CrossTests` holds them.

    Returns:
        ``ensemble``, ``n_train``, ``run``, ``test_set``, ``property``, ``mae`` in the database's
        unit; empty if there is no curve. Without sizes at which a run has a prediction that is NaN
        or infinite: the rest of their runs would look better than they are.
    """
    columns = ["ensemble", "n_train", "run", *_PLACE, "mae"]
    single = runs.assign(model=runs["run"], own_splits=False)
    table = error_matrix(single, errors).rename(columns={"model": "run"})
    if table.empty:
        return pd.DataFrame(columns=columns)
    names = [model_name(row, size=False) for row in single.to_dict("records")]
    table = table.merge(single[["run", "n_train"]].assign(ensemble=names), on="run")
    invalid = table.groupby(["ensemble", "n_train", *_PLACE])["n_invalid"].transform("sum")
    table = table[invalid == 0]
    sizes = table.groupby("ensemble")["n_train"].transform("nunique")
    return table.loc[sizes > 1, columns].reset_index(drop=True)


def power_laws(curves: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Fits of E = a N^-b to curves of three and more sizes.

    Args:
        curves: as :func:`learning_curves` gives them.
        seed: of the bootstrap over runs.

    Returns:
        ``ensemble``, ``test_set``, ``property``, ``a`` (in the property's unit), ``b``, ``b_low``,
        ``b_high`` (95 %, runs resampled at each size; NaN for one run), ``n_min``, ``n_max``.
    """
    columns = ["ensemble", *_PLACE]
    rng = np.random.default_rng(seed)
    rows = []
    for place, own in curves.groupby(columns, sort=False):
        if own["n_train"].nunique() < _FEWEST_SIZES or not (own["mae"] > 0).all():
            continue
        sizes = own["n_train"].to_numpy()
        by_size = {int(n): own["mae"].to_numpy()[sizes == n] for n in np.unique(sizes)}
        a, b = _fit(by_size)
        slopes = [
            _fit({n: rng.choice(errors, len(errors)) for n, errors in by_size.items()})[1]
            for _ in range(N_BOOTSTRAP)
        ]
        several = min(map(len, by_size.values())) > 1
        low, high = interval(np.array(slopes)) if several else (np.nan, np.nan)
        rows.append([*place, a, b, low, high, min(by_size), max(by_size)])
    return pd.DataFrame(rows, columns=[*columns, "a", "b", "b_low", "b_high", "n_min", "n_max"])


def labels_needed(laws: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Training structures that each ensemble needs for the smallest mean error of any.

    Args:
        laws: as :func:`power_laws` gives them.
        curves: that they were fitted to.

    Returns:
        ``ensemble``, ``test_set``, ``property``, ``error``, ``n_needed`` (infinite if the error
        does not fall with N) and ``extrapolated`` (outside twice the range of the data).
    """
    rows = []
    for place, own in laws.groupby(_PLACE, sort=False):
        there = curves[(curves[_PLACE] == [*place]).all(axis=1)]
        error = float(there.groupby(["ensemble", "n_train"])["mae"].mean().min())
        for law in own.to_dict("records"):
            n = (law["a"] / error) ** (1 / law["b"]) if law["b"] > 0 else np.inf
            far = not law["n_min"] / 2 <= n <= 2 * law["n_max"]
            rows.append([law["ensemble"], *place, error, n, far])
    columns = ["ensemble", *_PLACE, "error", "n_needed", "extrapolated"]
    return pd.DataFrame(rows, columns=columns)


def crossings(laws: pd.DataFrame) -> pd.DataFrame:
    """Numbers of labels at which two ensembles give the same error.

    Returns:
        ``test_set``, ``property``, ``one``, ``other``, ``n`` (NaN for parallel laws), ``error``,
        ``extrapolated`` (outside twice the range of the data of both).
    """
    rows = []
    for place, own in laws.groupby(_PLACE, sort=False):
        for one, other in combinations(own.to_dict("records"), 2):
            slope = one["b"] - other["b"]
            exponent = np.log(one["a"] / other["a"]) / slope if slope else np.nan
            n = float(np.exp(exponent)) if np.abs(exponent) < np.log(1e9) else np.nan
            low = max(one["n_min"], other["n_min"]) / 2
            high = 2 * min(one["n_max"], other["n_max"])
            error, far = one["a"] * n ** -one["b"], not low <= n <= high
            rows.append([*place, one["ensemble"], other["ensemble"], n, error, far])
    columns = [*_PLACE, "one", "other", "n", "error", "extrapolated"]
    return pd.DataFrame(rows, columns=columns)


def _fit(by_size: dict[int, np.ndarray]) -> tuple[float, float]:
    """Least squares in logarithms: (a, b) of a N^-b."""
    n = np.concatenate([np.full(len(errors), size) for size, errors in by_size.items()])
    slope, intercept = np.polyfit(np.log(n), np.log(np.concatenate([*by_size.values()])), 1)
    return float(np.exp(intercept)), float(-slope)
