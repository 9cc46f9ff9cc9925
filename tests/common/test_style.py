"""Grids of panels: sizes, unused panels, frames."""

import pytest

from schnetpack_phonon.common import style
from tests.common.figure_fixtures import draw


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1)), (2, (1, 2)), (3, (2, 2))])
def test_panels(n, shape):
    """At most two columns; unused panels are off and not given."""
    figure, axes = style.panels(n, (3, 2), (0.5, 1))
    assert len(axes) == n
    assert tuple(figure.get_size_inches()) == (0.5 + 3 * shape[1], 1 + 2 * shape[0])
    assert len(figure.axes) == shape[0] * shape[1]
    assert [axis for axis in figure.axes if axis.axison] == axes


def test_grid_passes_options():
    _, axes = style.grid(2, 3, (1, 1), sharey=True)
    assert axes.shape == (2, 3)
    axes[0, 0].set_ylim(0, 7)
    assert axes[1, 2].get_ylim() == (0, 7)


def test_hide_frame():
    _, axes = style.panels(1, (1, 1))
    style.hide_frame(axes)
    shown = {side for side, spine in axes[0].spines.items() if spine.get_visible()}
    assert shown == {"left", "bottom"}


def test_colors_and_markers_repeat():
    assert style.color(len(style.COLORS) + 1) == style.COLORS[1]
    assert style.marker(len(style.MARKERS) + 1) == style.MARKERS[1]


@pytest.mark.parametrize("width", [2.7, 8.0])
def test_legends_fit_the_figure(width):
    """Names of models can be longer than a narrow figure is wide."""
    figure, axes = style.grid(1, 1, (width, 2.0))
    for name in ("model, quantum", "trained on phonon, N = 10 (max_epochs=25)", "labels"):
        axes[0, 0].plot([0, 1], label=name)
    style.legend_above(figure, axes[0, 0])
    draw(figure)
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert len(legend.get_texts()) == 3
