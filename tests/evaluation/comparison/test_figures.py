"""Figures hold the numbers of their tables and draw without a warning."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imsave

from schnetpack_phonon.evaluation.comparison import figures, tables
from schnetpack_phonon.evaluation.comparison.learning_curves import learning_curves, power_laws
from schnetpack_phonon.evaluation.comparison.uncertainty import error_matrix
from schnetpack_phonon.evaluation.metrics import in_report_units
from tests.common.figure_fixtures import draw
from tests.evaluation.comparison.comparison_fixtures import errors_table, runs_table


@pytest.mark.parametrize("n_sets", [1, 5])
def test_cross_matrix(n_sets):
    runs = runs_table({"phonon": 10, "random": 10})
    names = [f"test set {k}" for k in range(n_sets)]
    table = errors_table(runs, {"phonon": 1.0, "random": 2.0}, test_sets=names, noise=0.1)
    table = pd.concat([table, table.assign(property="hydrostatic_stress")])
    columns = ["mae", "low", "high", "mae_mean"]
    matrix = in_report_units(error_matrix(runs, table), columns)
    figure = figures.cross_matrix(matrix)
    draw(figure)
    panels = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_ylabel() for axis in panels] == [
        "mean absolute error (eV)",
        "mean absolute error (GPa)",
    ]
    for axis, key in zip(panels, ("band_gap", "hydrostatic_stress"), strict=True):
        assert [t.get_text() for t in axis.get_xticklabels()] == names
        for model, container in zip(matrix["model"].unique(), axis.containers, strict=True):
            own = matrix[(matrix["property"] == key) & (matrix["model"] == model)]
            line, _, (bars,) = container
            np.testing.assert_allclose(line.get_ydata(orig=False), own["mae"])
            ends = np.array([segment[:, 1] for segment in bars.get_segments()])
            np.testing.assert_allclose(ends, own[["low", "high"]])
            assert np.abs(line.get_xdata(orig=False) - np.arange(n_sets)).max() < 0.5


def test_models_that_are_not_ranked_are_named():
    runs = runs_table({"phonon": 10, "random": 10})
    table = errors_table(runs, {"phonon": 1.0, "random": 2.0}, noise=0.1)
    table.loc[table["run"] == "random_10_0", ["mae", "mse", "max_error"]] = np.nan
    matrix = in_report_units(error_matrix(runs, table), ["mae", "low", "high", "mae_mean"])
    figure = figures.cross_matrix(matrix)
    draw(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["not ranked"]
    text = tables.matrix_table(matrix)["trained on random, N = 10"].item()
    assert text == "not ranked: no prediction for 40 of 40"


def test_learning_curves():
    runs = pd.concat(
        [runs_table({"phonon": n, "random": n}, n_seeds=2) for n in (10, 20, 40)]
    ).reset_index(drop=True)
    error = {
        row["run"]: (0.3 if row["ensemble"] == "phonon" else 0.6) * row["n_train"] ** -0.5
        for row in runs.to_dict("records")
    }
    curves = learning_curves(runs, errors_table(runs, error))
    figure = figures.learning_curves(curves, power_laws(curves))
    draw(figure)
    (axis,) = figure.axes
    assert axis.get_xscale() == axis.get_yscale() == "log"
    named = [text.get_text() for text in axis.get_legend().get_texts()]
    assert named == ["phonon, N^-0.50", "random, N^-0.50"]
    laws = [line for line in axis.lines if len(line.get_xdata()) > 10]
    for law, size in zip(laws, (0.3, 0.6), strict=True):
        np.testing.assert_allclose(law.get_ydata(), size * np.array(law.get_xdata()) ** -0.5)


def test_attribution_shares():
    shares = pd.DataFrame(
        [
            ("Ag3SBr", "Ag-S", "trained on phonon", 0.8, 0.1),
            ("Ag3SBr", "Ag-Br", "trained on phonon", 0.2, np.nan),
            ("Ag3SBr", "Ag-S", "untrained", 0.3, 0.2),
        ],
        columns=["structure", "bond_type", "model", "share", "seed_sd"],
    )
    figure = figures.attribution_shares(shares)
    draw(figure)
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["Ag-S", "Ag-Br"]
    heights = [bar.get_height() for bar in axis.patches]
    np.testing.assert_allclose(heights, [0.8, 0.2, 0.3, np.nan])


@pytest.mark.parametrize("phonons", [True, False])
def test_coverage(phonons):
    """With and without phonons; an outlier and a distance that is not known."""
    rng = np.random.default_rng(0)
    names = ["phonon", "random"]
    densities = pd.concat(
        pd.DataFrame({"ensemble": n, "distance": np.linspace(2, 4, 20), "density": k + 1.0})
        for k, n in enumerate(names)
    )
    amplitudes = pd.DataFrame({"ensemble": names, "frequency": [-1.0, 2.0], "amplitude": 1.1})
    labels = pd.DataFrame({"ensemble": names * 10, "label": rng.normal(size=20)})
    errors = pd.DataFrame(
        {"model": "phonon, N = 4", "distance": rng.uniform(1, 3, 60), "error": rng.uniform(size=60)}
    )
    errors.loc[0, "distance"] = np.inf  # a species that is not known
    errors.loc[1, "distance"] = 1e3  # an outlier takes no room, but is shown
    tables = densities, amplitudes[: 2 * phonons], labels, errors
    figure = figures.coverage(*tables, {"phonon, N = 4": "phonon"}, "Ag3SBr", "band_gap", 300)
    draw(figure)
    first, second, third, fourth = figure.axes
    assert [line.get_label() for line in first.lines] == names
    assert bool(second.texts) != phonons
    assert third.get_xlabel() == "band gap (eV)"
    inside, beyond = fourth.lines[:2]
    assert (len(inside.get_xdata()), len(beyond.get_xdata())) == (58, 1)
    assert fourth.get_xlim()[1] > beyond.get_xdata().item() > 3
    assert "1 beyond" in fourth.get_title()


def test_bond_maps(tmp_path):
    """One of each model with most labels, from the first of its runs that has a picture."""
    runs = runs_table({"phonon": 10, "random": 10}).assign(run=lambda t: tmp_path / t["model"])
    assert figures.bond_maps(runs) is None
    shades = {"phonon": 0.2, "random": 0.7}
    for model, ensemble in zip(runs["model"], runs["ensemble"], strict=True):
        (tmp_path / model / "figures").mkdir(parents=True, exist_ok=True)
        picture = np.full((4, 6, 3), shades[ensemble])
        imsave(tmp_path / model / "figures" / "bonds_3d.png", picture)
    figure = figures.bond_maps(runs)
    draw(figure)
    drawn = {axis.get_title("left"): axis.images[0].get_array() for axis in figure.axes}
    expected = dict(zip(runs["model"], runs["ensemble"], strict=True))
    assert list(drawn) == [f"trained on {model}" for model in expected]
    for model, ensemble in expected.items():
        image = drawn[f"trained on {model}"][..., :3]
        np.testing.assert_allclose(image, shades[ensemble], atol=0.005)
