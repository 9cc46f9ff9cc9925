"""Figures hold the bands, states and hoppings that they are given, and draw without a warning."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.dft.kpoints import BandPath
from ase.spectrum.band_structure import BandStructure
from ase.spectrum.dosdata import GridDOSData

from schnetpack_phonon.evaluation.bands.figures import band_figure, hopping_figure
from schnetpack_phonon.evaluation.bands.hoppings import hopping_table
from schnetpack_phonon.models.hamiltonian.matrix import Hamiltonian
from tests.common.figure_fixtures import draw
from tests.models.model_fixtures import CUTOFF

DOS = GridDOSData(np.linspace(-4, 6, 21), np.linspace(1, 3, 21))


def test_bands_relative_to_their_zero_with_jumps_and_labels():
    path = bulk("Cu").cell.bandpath(density=10)
    energies = np.random.default_rng(0).uniform(-3, 5, (1, len(path.kpts), 2))
    bands = BandStructure(path, energies, reference=1.5)
    labels = {"VBM": 1.0, "CBM": 2.0}
    figure = band_figure(bands, DOS, ("VBM", 1.1), (-4, 4), labels, "Cu")
    draw(figure)
    left, right = figure.axes
    names = [tick.get_text() for tick in left.get_xticklabels()]
    assert names == ["Γ", "X", "W", "K", "Γ", "L", "U", "W", "L", "K|U", "X"]
    for k in range(2):
        drawn = left.lines[k].get_ydata()
        np.testing.assert_allclose(drawn[~np.isnan(drawn)], energies[0, :, k] - 1.1)
        assert np.isnan(drawn).sum() == 1  # between K and U
    assert left.get_ylabel() == "energy − VBM (eV)"
    assert left.get_ylim() == (-4, 4)
    heights = {line.get_label(): line.get_ydata()[0] for line in left.lines}
    assert heights["VBM of the label"] == pytest.approx(-0.1)
    assert heights["CBM of the label"] == pytest.approx(0.9)
    states, levels = right.lines[0].get_data()
    np.testing.assert_allclose(levels, DOS.get_energies()[3:19] - 1.1, atol=1e-12)
    np.testing.assert_allclose(states, DOS.get_weights()[3:19])


def test_levels_of_a_molecule_are_lines():
    path = BandPath(np.zeros((3, 3)), np.zeros((1, 3)), {"G": [0, 0, 0]}, "G")
    bands = BandStructure(path, np.array([[[-1.0, 2.0]]]), reference=0.5)
    figure = band_figure(bands, DOS, ("VBM", -1.0), (-1, 4), {}, "H2")
    draw(figure)
    for line, energy in zip(figure.axes[0].lines, (0, 3), strict=False):
        np.testing.assert_allclose(line.get_ydata(), [energy, energy])
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["Γ"]


@pytest.mark.parametrize("trained", [{}, {"Ag-S": np.linspace(2.3, 4.9, 100)}])
def test_hoppings_beside_their_start(trained):
    """Of so many orbitals that colours repeat."""
    orbitals = {"Ag": {"electrons": 11, "s": -4.3, "p": -1.0, "d": -8.1}}
    hamiltonian = Hamiltonian(["Ag", "S"], CUTOFF, orbitals=orbitals)
    table = hopping_table(hamiltonian, "Ag", "S", np.linspace(2, CUTOFF, 20))
    figure = hopping_figure(table, {"Ag-S": np.array([2.4, 4.0])}, trained)
    draw(figure)
    (axis,) = figure.axes
    looks = {(line.get_color(), line.get_linestyle()) for line in axis.lines[:-2:2]}
    assert len(looks) == table["orbitals"].nunique() > 7
    for name, rows in table.groupby("orbitals"):
        shown = str(name).replace("-", "–")
        k = [line.get_label() for line in axis.lines].index(shown)
        for line, column in zip(axis.lines[k : k + 2], ("trained", "start"), strict=True):
            np.testing.assert_allclose(line.get_data(), [rows["distance"], rows[column]])
    assert ("training set" in figure.get_suptitle()) == bool(trained)
