"""Error against number of labels: power laws, where they cross, labels for a given error.

The law is E(N) = a N^-b (Cortes et al., NIPS 1993; Hestness et al., arXiv:1712.00409), fitted to
the logarithms of the errors of single runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from schnetpack_phonon.evaluation.comparison.uncertainty import error_matrix

N_BOOTSTRAP = 1000


_FEWEST_SIZES = 3  # two points always lie on a line


def learning_curves(runs: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """Errors of each run against its number of training structures.

    Args:
        runs: as :func:`.group_runs` gives them; only ensembles with several numbers
            of labels at the same other settings are taken.
        errors: as :class:`.CrossTests` holds them.

    Returns:
        ``ensemble``, ``n_train``, ``run``, ``test_set``, ``property``, ``mae`` in the database's
        unit; empty where there is no curve.
    """
    single = runs.assign(model=runs["run"], own_splits=False)
    table = error_matrix(single, errors).rename(columns={"model": "run"})
    if table.empty:
        return pd.DataFrame(columns=["ensemble", "n_train", "run", "test_set", "property", "mae"])
    table = table.merge(runs[["run", "ensemble", "settings", "n_train"]], on="run")
    table["ensemble"] += table["settings"].map(lambda text: f" ({text})" if text else "")
    sizes = table.groupby("ensemble")["n_train"].transform("nunique")
    columns = ["ensemble", "n_train", "run", "test_set", "property", "mae"]
    return table.loc[sizes > 1, columns].reset_index(drop=True)


def power_laws(curves: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Fits of E = a N^-b to curves of three sizes and more.

    Args:
        curves: as :func:`learning_curves` gives them.
        seed: of the bootstrap over runs.

    Returns:
        ``ensemble``, ``test_set``, ``property``, ``a`` (in the property's unit), ``b``, ``b_low``,
        ``b_high`` (95 %, runs drawn again at each size), ``n_min``, ``n_max``.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for place, own in curves.groupby(["ensemble", "test_set", "property"], sort=False):
        if own["n_train"].nunique() < _FEWEST_SIZES or not (own["mae"] > 0).all():
            continue
        sizes = sorted(map(int, own["n_train"].unique()))
        by_size = {n: own.loc[own["n_train"] == n, "mae"].to_numpy() for n in sizes}
        a, b = _fit(by_size)
        slopes = [_fit(_redrawn(by_size, rng))[1] for _ in range(N_BOOTSTRAP)]
        several = min(map(len, by_size.values())) > 1
        low, high = np.quantile(slopes, [0.025, 0.975]) if several else (np.nan, np.nan)
        rows.append(
            {
                **dict(zip(["ensemble", "test_set", "property"], place, strict=True)),
                **{"a": a, "b": b, "b_low": low, "b_high": high},
                **{"n_min": min(by_size), "n_max": max(by_size)},
            }
        )
    columns = ["ensemble", "test_set", "property", "a", "b", "b_low", "b_high", "n_min", "n_max"]
    return pd.DataFrame(rows, columns=columns)


def labels_needed(laws: pd.DataFrame, errors: Sequence[float]) -> pd.DataFrame:
    """Training structures at which a law reaches given errors.

    Args:
        laws: as :func:`power_laws` gives them, of one property.
        errors: in the property's unit.

    Returns:
        The laws' places with ``error``, ``n_needed`` (infinite where the error does not fall with
        N) and ``extrapolated`` (outside twice the range of the data).
    """
    rows = []
    for law in laws.to_dict("records"):
        for error in errors:
            n = (law["a"] / error) ** (1 / law["b"]) if law["b"] > 0 else np.inf
            rows.append(
                {
                    **{key: law[key] for key in ("ensemble", "test_set", "property")},
                    **{"error": error, "n_needed": n},
                    "extrapolated": not law["n_min"] / 2 <= n <= 2 * law["n_max"],
                }
            )
    columns = ["ensemble", "test_set", "property", "error", "n_needed", "extrapolated"]
    return pd.DataFrame(rows, columns=columns)


def crossings(laws: pd.DataFrame) -> pd.DataFrame:
    """Numbers of labels at which two ensembles give the same error.

    Returns:
        ``test_set``, ``property``, ``one``, ``other``, ``n`` (NaN for parallel laws), ``error``,
        ``extrapolated`` (outside twice the range of the data of both).
    """
    rows = []
    for (test_set, key), own in laws.groupby(["test_set", "property"], sort=False):
        for one, other in combinations(own.to_dict("records"), 2):
            slope = one["b"] - other["b"]
            exponent = np.log(one["a"] / other["a"]) / slope if slope else np.nan
            n = float(np.exp(exponent)) if np.abs(exponent) < np.log(1e9) else np.nan
            low = max(one["n_min"], other["n_min"]) / 2
            high = 2 * min(one["n_max"], other["n_max"])
            rows.append(
                {
                    **{"test_set": test_set, "property": key},
                    **{"one": one["ensemble"], "other": other["ensemble"], "n": n},
                    "error": one["a"] * n ** -one["b"],
                    "extrapolated": not low <= n <= high,
                }
            )
    columns = ["test_set", "property", "one", "other", "n", "error", "extrapolated"]
    return pd.DataFrame(rows, columns=columns)


def _fit(by_size: dict[int, np.ndarray]) -> tuple[float, float]:
    """Least squares in logarithms: (a, b) of a N^-b."""
    n = np.concatenate([np.full(len(errors), size) for size, errors in by_size.items()])
    slope, intercept = np.polyfit(np.log(n), np.log(np.concatenate([*by_size.values()])), 1)
    return float(np.exp(intercept)), float(-slope)


def _redrawn(by_size: dict[int, np.ndarray], rng: np.random.Generator) -> dict[int, np.ndarray]:
    return {size: rng.choice(errors, len(errors)) for size, errors in by_size.items()}
