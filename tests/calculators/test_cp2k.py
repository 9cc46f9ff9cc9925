"""CP2K: its input contains all options, and its output is read correctly."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.units import Bohr, GPa, Hartree

from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.calculators.reading import cp2k_text
from schnetpack_phonon.calculators.reading.levels import band_edges
from tests.calculators.code_fixtures import MESHES
from tests.calculators.cp2k_fixtures import STORED, aluminium_phosphide


def written(tmp_path, atoms=None, **options) -> str:
    CP2K(**options).write_input(tmp_path, atoms or aluminium_phosphide(), 0.4)
    return (tmp_path / "label.inp").read_text()


def read_output(folder: Path) -> dict:
    return CP2K().read_output(folder, aluminium_phosphide())


def test_default_input(tmp_path):
    text = [line.strip() for line in written(tmp_path).splitlines()]
    for line in (
        "STRESS_TENSOR ANALYTICAL",
        "PARAMETRIZATION PBESOL",
        "SCHEME MONKHORST-PACK 2 2 2",
        "SPECIAL_POINT G 0.0 0.0 0.0",
        "ALPHA 0.4",
    ):
        assert text.count(line) == 1, line


def test_gamma_alone_is_calculated_with_real_orbitals(tmp_path):
    text = written(tmp_path, kpoints=[1, 1, 1])
    assert "KPOINT" not in text
    assert "BAND_STRUCTURE" not in text
    assert "&KPOINTS" in written(tmp_path, kpoints=[1, 1, 2])


def test_structure_in_the_input(tmp_path):
    """Cell as rows, atoms in their order, ten digits, each element once."""
    atoms = aluminium_phosphide().repeat((2, 1, 1))
    text = written(tmp_path, atoms)
    cell = re.findall(r"^ +[ABC] +(\S+) (\S+) (\S+)$", text, re.MULTILINE)
    np.testing.assert_allclose(np.array(cell, dtype=float), atoms.cell.array, atol=1e-10)
    section = re.search(r"&COORD\n(.*)\n +&END COORD", text, re.DOTALL)[1]
    sites = [line.split() for line in section.splitlines()]
    assert [symbol for symbol, *_ in sites] == ["Al", "P", "Al", "P"]
    positions = np.array([numbers for _, *numbers in sites], dtype=float)
    np.testing.assert_allclose(positions, atoms.positions, atol=1e-10)
    assert re.findall(r"&KIND (\S+)", text) == ["Al", "P"]


def test_moments_become_kinds(tmp_path):
    """Each element and moment; the multiplicity has the parity of the nuclear charges."""
    atoms = bulk("FeO", "rocksalt", a=4.3).repeat((2, 1, 1))
    for moments, multiplicity in (([2.0, 0.0, -2.0, 0.0], 1), ([2.4, 0.0, 2.4, 0.1], 7)):
        atoms.set_initial_magnetic_moments(moments)
        CP2K().write_input(tmp_path, atoms, 0.4)
        text = (tmp_path / "label.inp").read_text()
        assert f"  &DFT\n    UKS\n    MULTIPLICITY {multiplicity}\n" in text
        sections = re.findall(r"&KIND (\S+)\n(.*?)&END KIND", text, re.DOTALL)
        kinds = {name: dict(map(str.split, own.strip().splitlines())) for name, own in sections}
        symbols, *_ = cp2k_text.structure(text)
        assert symbols == atoms.get_chemical_symbols()
        names = re.findall(r"^ +((?:Fe|O)\d)", text, re.MULTILINE)
        assert [float(kinds[name]["MAGNETIZATION"]) for name in names] == moments
        assert [kinds[name]["ELEMENT"] for name in names] == symbols
        assert len(kinds) == len(set(zip(symbols, moments, strict=True)))
    atoms.set_initial_magnetic_moments([1.0, 0.0, 0.0, 0.0])
    CP2K().write_input(tmp_path, atoms, 0.4)
    assert "MULTIPLICITY 3\n" in (tmp_path / "label.inp").read_text()


def test_output_at_gamma():
    """Numbers as they stand in the file."""
    results = read_output(STORED / "gamma")
    assert results["energy"] == pytest.approx(-8.176460718229020 * Hartree, rel=1e-12)
    forces = np.array(
        [[-0.0321735590, -0.0113781035, -0.0181094780], [0.0321641169, 0.0113795278, 0.0181139678]]
    )
    np.testing.assert_allclose(results["forces"], forces * Hartree / Bohr, rtol=1e-12)
    pressure = [
        [37.3865655644, 2.96713469259, -1.37648860940],
        [2.96713469259, 33.6457660731, -1.78033859663],
        [-1.37648860940, -1.78033859663, 33.6175925836],
    ]
    np.testing.assert_allclose(results["stress"], -np.array(pressure) * GPa, rtol=1e-12)
    assert (results["vbm"], results["cbm"]) == (6.22547243, 8.04999983)
    assert results["band_gap_gamma"] == pytest.approx(1.82452740, abs=1e-7)  # CP2K prints it too
    assert results["partial_occupation"] == 0


@pytest.mark.parametrize("kind", MESHES)
def test_gaps_that_cp2k_prints(kind):
    """None is smaller than ours; bands counted by electrons are those told by occupation."""
    text = (STORED / kind / "label.out").read_text()
    rows = [line.split() for line in text.splitlines() if re.match(r" MO\|\s+\d", line)]
    energies, occupations = np.array(rows)[:, -2:].astype(float).T
    if kind == "mesh":
        bands = np.loadtxt(STORED / kind / "bands")
        energies = np.append(energies, bands[:, 1])
        occupations = np.append(occupations, bands[:, 2])
    results = read_output(STORED / kind)
    assert band_edges(energies, occupations) == (results["vbm"], results["cbm"])
    printed = [float(gap) for gap in re.findall(r"MO\| Band gap: .* (\S+) eV", text)]
    assert len(printed) == (4 if kind == "mesh" else 1)
    assert results["cbm"] - results["vbm"] < min(printed) + 1e-7


def test_edges_come_from_the_mesh_or_from_gamma(output):
    """Both of them from either; the gap at Gamma stays what it is."""
    raised = read_output(output("mesh", "4.50955080", "5.60000000"))
    assert (raised["vbm"], raised["cbm"]) == (5.6, 6.75443561)
    assert raised["band_gap_gamma"] == pytest.approx(2.06902924, abs=1e-7)
    lowered = read_output(output("mesh", "6.99323993", "6.10000000", "bands"))
    assert (lowered["vbm"], lowered["cbm"]) == (4.92421069, 6.1)
    assert lowered["band_gap_gamma"] == pytest.approx(6.1 - 4.92421069, abs=1e-7)


_BOX = """
 *******************************************************************************
 *   ___                                                                       *
 *  /   \\                                                                      *
 * [ABORT]                                                                     *
 *  \\___/    The requested basis set <DZVP-MOLOPT-SR-GTH> for element <LA> was *
 *    |               not found in the basis set files <BASIS_MOLOPT>          *
 *  O/|                                                                        *
 * /| |                                                                        *
 * / \\                                          aobasis/basis_set_types.F:1509 *
 *******************************************************************************


 ===== Routine Calling Stack =====

            3 read_qs_kind
            2 create_qs_kind_set
            1 CP2K
"""


def test_reason_in_the_box(output):
    folder = output("mesh", r" SCF PARAM.*", _BOX.replace("\\", r"\\"))
    message = (
        "CP2K stopped: The requested basis set <DZVP-MOLOPT-SR-GTH> for element <LA> was not "
        r"found in the basis set files <BASIS_MOLOPT> aobasis/basis_set_types.F:1509$"
    )
    with pytest.raises(CalculationFailed, match=message):
        read_output(folder)


def test_last_of_several_runs_in_a_folder_counts(output):
    """CP2K appends to what it finds there."""
    folder = output("mesh", r"PROGRAM ENDED AT", "")
    for name in ("label.out", "bands"):
        text = (STORED / "mesh" / name).read_text()
        with open(folder / name, "a") as file:
            file.write(text)
    found = read_output(folder)
    for key, expected in read_output(STORED / "mesh").items():
        np.testing.assert_array_equal(found[key], expected, err_msg=key)
    with open(folder / "label.out", "a") as file:
        file.write(" **** PROGRAM STARTED AT\n")
    with pytest.raises(CalculationFailed, match="cut off"):
        read_output(folder)


def test_mesh_without_levels_at_gamma(tmp_path):
    """A k-point of the mesh is not taken for Gamma."""
    shutil.copy(STORED / "mesh" / "label.out", tmp_path)
    with pytest.raises(CalculationFailed, match="no levels at Gamma"):
        read_output(tmp_path)
