"""Numbers of CP2K in the layouts of its versions, in the unit that is printed beside them."""

import re

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed
from ase.units import Bohr, GPa, Hartree

from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.calculators.reading import cp2k_text
from tests.calculators.cp2k_fixtures import STORED, aluminium_phosphide

OLD = (STORED / "gamma" / "label.out").read_text()


def of_2025(text: str) -> str:
    """The same numbers as CP2K 2025.1 and later print them."""
    head, _, rest = text.partition(" ATOMIC FORCES in [a.u.]\n")
    block, _, tail = rest.partition(" SUM OF ATOMIC FORCES")
    lines = [" FORCES| Atomic forces [hartree/bohr]\n FORCES|   Atom     x     y     z     |f|\n"]
    for number, row in enumerate(re.findall(r"^ +\d+ +\d+ +[A-Z].*$", block, re.MULTILINE), 1):
        force = np.array(row.split()[3:], dtype=float)
        values = "".join(f" {x:15.8E}" for x in (*force, np.linalg.norm(force)))
        lines.append(f" FORCES| {number:6d}{values}\n")
    lines.append(" FORCES| Sum    -9.44E-06  1.42E-06  4.49E-06\n FORCES| Total atomic force  1E-5")
    stress = re.compile(r"(-?\d\.\d+)E([+-]\d+)")
    tail = stress.sub(lambda match: f"{float(match[0]) * 1e4:.11E}", tail)
    text = head + "".join(lines) + tail
    for old, new in (
        ("CP2K version 2023.1", "CP2K version 2025.1"),
        ("energy [a.u.]:", "energy [hartree]"),
        ("stress tensor [GPa]", "stress tensor [bar]"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("convert", [str, of_2025])
def test_layouts(convert):
    text = convert(OLD)
    assert cp2k_text.energy(text) == pytest.approx(-8.176460718229020 * Hartree, rel=1e-12)
    symbols, forces = cp2k_text.forces(text)
    assert symbols == (["Al", "P"] if convert is str else None)
    expected = np.array([-0.0321735590, -0.0113781035, -0.0181094780]) * Hartree / Bohr
    np.testing.assert_allclose(forces[0], expected, rtol=1e-8)
    assert forces.shape == (2, 3)
    np.testing.assert_allclose(cp2k_text.stress(text)[0, 0], -37.3865655644 * GPa, rtol=1e-9)
    assert cp2k_text.version(text) == ("2023.1" if convert is str else "2025.1")


def test_labels_of_both_layouts(tmp_path):
    (tmp_path / "label.out").write_text(of_2025(OLD))
    found = CP2K().read_output(tmp_path, aluminium_phosphide())
    for key, expected in CP2K().read_output(STORED / "gamma", aluminium_phosphide()).items():
        np.testing.assert_allclose(found[key], expected, rtol=1e-8, err_msg=key)


@pytest.mark.parametrize(
    ("unit", "factor"), [("kbar", 10), ("MPa", 1000), ("GPa", 1), ("atm", 1e4 / 1.01325)]
)
def test_units_of_stress(unit, factor):
    """The option STRESS_UNIT changes number and header."""
    text = OLD.replace("stress tensor [GPa]", f"stress tensor [{unit}]")
    np.testing.assert_allclose(cp2k_text.stress(text) * factor, cp2k_text.stress(OLD), rtol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "tensor [GPa]",
            "tensor [psi]",
            r"CP2K 2025\.1 prints stress in 'psi'; expected one of pa",
        ),
        ("tensor [GPa]", "tensor", r"no stress tensor, or it .* \(version 2025\.1\)"),
        ("energy [a.u.]", "energy [kcalmol]", "prints energy in 'kcalmol'; expected one of a.u."),
        ("FORCES in [a.u.]", "FORCES in [x]", "prints forces in 'x'; expected one of a.u., hart"),
        ("ATOMIC FORCES in", "FORCES:", r"has no forces, or it is not printed \(version 2025\.1\)"),
    ],
)
def test_layouts_that_are_not_known(old, new, message, tmp_path):
    text = OLD.replace("version 2023.1", "version 2025.1")
    assert old in text
    (tmp_path / "label.out").write_text(text.replace(old, new))
    with pytest.raises(CalculationFailed, match=message):
        CP2K().read_output(tmp_path, aluminium_phosphide())
