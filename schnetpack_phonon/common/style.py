"""Look of all figures: colours, markers, grids of panels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from schnetpack_phonon.common.files import replacing

#: Colours that remain distinct in the common forms of colour blindness (Okabe and Ito).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*"
_HANDLE = 7  # characters that are as wide as a line or marker of a legend and its margins


def color(k: int) -> str:
    """Colour of the k-th curve; they repeat after the last."""
    return COLORS[k % len(COLORS)]


def marker(k: int) -> str:
    """Marker of the k-th curve; they repeat after the last."""
    return MARKERS[k % len(MARKERS)]


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, completely or not at all; its folder is made.

    Raises:
        OSError: if it cannot be written; names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        figure.savefig(part, dpi=150)


def grid(
    n_rows: int,
    n_columns: int,
    size: tuple[float, float],
    margin: tuple[float, float] = (0, 0),
    **options: Any,
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes, shape=(n_rows, n_columns).

    Args:
        n_rows: of panels.
        n_columns: of panels.
        size: width and height of a panel in inches.
        margin: added to the width and the height of the figure, in inches.
        options: of ``Figure.subplots``, such as ``sharey``.
    """
    figsize = margin[0] + size[0] * n_columns, margin[1] + size[1] * n_rows
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(n_rows, n_columns, squeeze=False, **options)


def panels(
    n: int,
    size: tuple[float, float],
    margin: tuple[float, float] = (0, 0),
    n_columns: int = 2,
    **options: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure and the axes of n panels, in at most ``n_columns`` columns; as :func:`grid`."""
    n_columns = min(n, n_columns)
    figure, axes = grid(-(-n // n_columns), n_columns, size, margin, **options)
    for unused in axes.flat[n:]:
        unused.set_axis_off()
    return figure, list(axes.flat[:n])


def hide_frame(axes: Iterable[Axes]) -> None:
    """Leaves the left and the lower side of each panel's frame only."""
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)


def characters(figure: Figure) -> int:
    """How many small characters fit into the width of a figure."""
    return int(13 * figure.get_figwidth())


def legend_above(figure: Figure, axis: Axes) -> None:
    """One legend for all panels, in as many columns as fit; long names go on in further lines."""
    handles, names = axis.get_legend_handles_labels()
    room = characters(figure) - _HANDLE
    names = [fill(name, room) for name in names]
    longest = max((len(line) for name in names for line in name.splitlines()), default=1)
    figure.legend(
        handles, names, loc="outside upper center", frameon=False, fontsize="small",
        ncols=max((room + _HANDLE) // (longest + _HANDLE), 1),
    )  # fmt: skip
