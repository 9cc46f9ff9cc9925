"""CP2K's input says what is asked, and the installed program understands it."""

import re

import numpy as np
import pytest

from schnetpack_phonon.calculators.cp2k import CP2K
from tests.calculators.cp2k_fixtures import aluminium_phosphide


def test_overlapping_bands(output, fake):
    """A valence level above a conduction level at another k-point: no gap, but one at Gamma."""
    folder = output("mesh", "2.79380930", "6.78000000")
    labels = CP2K(command=fake(folder)).label(aluminium_phosphide())
    middle = pytest.approx((6.78 + 6.75443561) / 2)
    assert (labels["vbm"], labels["cbm"], labels["band_gap"]) == (middle, middle, 0)
    assert labels["band_gap_gamma"] == pytest.approx(2.06902924)


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def test_default_input():
    text = lines(CP2K().input_text(aluminium_phosphide(), 0.4))
    for line in (
        "STRESS_TENSOR ANALYTICAL",
        "PARAMETRIZATION PBESOL",
        "SCHEME MONKHORST-PACK 2 2 2",
        "SPECIAL_POINT G 0.0 0.0 0.0",
        "ALPHA 0.4",
    ):
        assert text.count(line) == 1, line


def test_gamma_alone_is_calculated_with_real_orbitals():
    text = CP2K(kpoints=[1, 1, 1]).input_text(aluminium_phosphide(), 0.4)
    assert "KPOINT" not in text
    assert "BAND_STRUCTURE" not in text
    assert "&KPOINTS" in CP2K(kpoints=[1, 1, 2]).input_text(aluminium_phosphide(), 0.4)


def test_structure_in_the_input():
    """Cell as rows, atoms in their order, ten digits, each element once."""
    atoms = aluminium_phosphide().repeat((2, 1, 1))
    text = CP2K().input_text(atoms, 0.4)
    cell = re.findall(r"^ +[ABC] +(\S+) (\S+) (\S+)$", text, re.MULTILINE)
    np.testing.assert_allclose(np.array(cell, dtype=float), atoms.cell.array, atol=1e-10)
    section = re.search(r"&COORD\n(.*)\n +&END COORD", text, re.DOTALL)[1]
    sites = [line.split() for line in section.splitlines()]
    assert [symbol for symbol, *_ in sites] == ["Al", "P", "Al", "P"]
    positions = np.array([numbers for _, *numbers in sites], dtype=float)
    np.testing.assert_allclose(positions, atoms.positions, atol=1e-10)
    assert re.findall(r"&KIND (\S+)", text) == ["Al", "P"]
