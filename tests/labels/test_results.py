"""Labels are taken from the output of the very structure, code and version, or not at all."""

import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.units import Hartree

from schnetpack_phonon.common import properties
from schnetpack_phonon.labels.offline import collect
from schnetpack_phonon.labels.results import Status
from schnetpack_phonon.labels.store import LabelStore
from tests.labels.offline_fixtures import (
    CODE,
    SPRING,
    calculations,
    cp2k,
    export_from,
    make_generation,
    run,
    spoil,
)


@pytest.fixture
def generation(tmp_path):
    return make_generation(tmp_path)


@pytest.fixture
def root(tmp_path, generation):
    """The ideal crystal and two snapshots, exported and run."""
    export_from(generation, tmp_path / "out", CODE)
    run(tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def first(root) -> str:
    return next(iter(calculations(root)))


@pytest.fixture
def refused(root, generation):
    """Collects, and tells status and reason of the first calculation, which gave no labels."""

    def result(file: str | None = None):
        summary = collect(root, file)
        found = summary.results[0]
        assert found.labels is None
        assert not summary.complete
        store = generation.label_store
        assert not store.exists() or found.calculation.key not in LabelStore(store)
        assert found.calculation.folder in (root / "todo.txt").read_text()
        assert f"{found.calculation.folder} ({found.calculation.description}): " in str(summary)
        return found.status, found.reason

    return result


def test_labels_are_those_of_the_output(root):
    """Energy and forces of the spring that the fake program holds the atoms together with."""
    for result in collect(root).results:
        a, b = result.calculation.atoms.positions
        stretch = b - a - np.full(3, 5.46 / 4)
        expected = -8 * Hartree + SPRING * stretch @ stretch / 2
        assert result.labels["energy"].item() == pytest.approx(expected, abs=1e-8)
        np.testing.assert_allclose(
            result.labels["forces"], SPRING * np.array([stretch, -stretch]), atol=1e-8
        )
        assert result.labels.keys() == set(cp2k().properties)
        for key, value in result.labels.items():
            assert value.shape == properties.array_shape(key, 2)


def test_output_of_another_snapshot(root, first, refused):
    other = list(calculations(root))[1]
    shutil.copy(root / other / "label.out", root / first / "label.out")
    status, reason = refused()
    assert status is Status.OTHER_STRUCTURE
    assert "does it belong to another structure" in reason


@pytest.mark.parametrize(
    ("pattern", "replacement", "expected", "named"),
    [
        (
            r"( Al [^\n]*\n)( P [^\n]*\n)( +UNIT)",
            r"\2\1\3",
            Status.OTHER_STRUCTURE,
            "has 2 atoms (PAl...); expected AlP in that order",
        ),
        (r" C 2\.73", " C 2.75", Status.OTHER_STRUCTURE, "another cell, different by 0.02 Ang"),
        (
            "CP2K version 2023.1",
            "CP2K version 2024.1",
            Status.OTHER_VERSION,
            "written by CP2K 2024.1; expected CP2K 2023.1: run that version, or export",
        ),
        (r"PROGRAM ENDED.*", "", Status.BROKEN, "cut off: the calculation was killed"),
        (r"STRESS\|.*?\n", "", Status.BROKEN, "no stress tensor"),
        (
            r"ENERGY\|[^\n]*",
            "ENERGY| Total FORCE_EVAL energy [a.u.]: 1" + "0" * 400 + ".0",
            Status.BROKEN,
            "not finite: energy",
        ),
        (r"1 1 Al [^\n]*", "1 1 Al wrong 0 0", Status.BROKEN, "ValueError: could not convert"),
    ],
    ids=["order", "cell", "version", "cut off", "no stress", "not finite", "no number"],
)
def test_outputs_that_are_refused(root, first, refused, pattern, replacement, expected, named):
    spoil(root, first, pattern, replacement)
    status, reason = refused()
    assert status is expected
    assert named in reason


def test_outputs_of_other_settings_are_refused(root, first, refused):
    """Those that the output names: got and expected."""
    spoil(root, first, r"eps_scf:( +)1\.00E-03", r"eps_scf:\g<1>1.00E-05")
    status, reason = refused()
    assert status is Status.OTHER_SETTINGS
    assert reason.startswith("EPS_SCF is 1.00E-05; expected 0.001: run the exported input")


def test_folder_that_was_deleted(root, first, refused, generation):
    """Its input is written again."""
    shutil.rmtree(root / first)
    summary = collect(root)
    assert summary.results[0].status is Status.NOT_RUN
    export_from(generation, root, CODE)
    run(root)
    assert collect(root).complete


def test_input_that_was_changed_is_told(root, first):
    """The labels are stored as those of the settings that were exported."""
    with open(root / first / "label.inp", "a") as file:
        file.write("! more memory\n")
    summary = collect(root)
    assert summary.complete
    told = [result.reason for result in summary.results]
    assert told == ["accepted, but label.inp was changed after the export", None, None]


# ---- results that a user brings


@pytest.fixture
def bring(root, first):
    """Writes ``result.extxyz`` of other results, or of other atoms."""

    def write_results(atoms: Atoms | None = None, folder: str = first, **changes) -> None:
        atoms = atoms or calculations(root)[folder].atoms
        results = {
            "energy": -7.0,
            "free_energy": None,
            "forces": np.full((len(atoms), 3), 0.25),
            "stress": np.array([0.1, 0.2, 0.3, 0.04, 0.05, 0.06]),
        }
        info = {"vbm": 1.0, "cbm": 3.0, "band_gap_gamma": 2.5, "partial_occupation": 0.0}
        info["converged"] = None
        results = {key: changes.get(key, value) for key, value in results.items()}
        atoms = atoms.copy()
        atoms.info = {key: changes.get(key, value) for key, value in info.items()}
        given = {key: value for key, value in results.items() if value is not None}
        atoms.calc = SinglePointCalculator(atoms, **given)
        atoms.info = {key: value for key, value in atoms.info.items() if value is not None}
        write(root / folder / "result.extxyz", atoms)

    return write_results


def test_results_in_place_of_the_output(root, first, bring):
    """Those of the other folders are not there; what CP2K left is not looked at."""
    bring()
    summary = collect(root, "result.extxyz")
    assert [o.status for o in summary.results] == [Status.FINISHED] + [Status.NOT_RUN] * 2
    labels = summary.results[0].labels
    assert labels["energy"].item() == -7
    assert labels["band_gap"].item() == 2
    assert labels["band_gap_gamma"].item() == 2.5
    np.testing.assert_allclose(labels["forces"], 0.25)
    expected = [[0.1, 0.06, 0.05], [0.06, 0.2, 0.04], [0.05, 0.04, 0.3]]
    np.testing.assert_allclose(labels["stress"][0], expected)


def test_free_energy_is_the_energy(root, bring):
    """ASE's energy is extrapolated to zero smearing; forces are not its gradient."""
    bring(free_energy=-7.5)
    assert collect(root, "result.extxyz").results[0].labels["energy"].item() == -7.5
    bring(free_energy=-8.5, energy=None)
    store = collect(root, "result.extxyz", label_store=root / "other.jsonl")
    assert store.results[0].labels["energy"].item() == -8.5


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stress": None}, "result.extxyz has no stress; energy, forces and stress are needed"),
        ({"energy": None, "forces": None}, "result.extxyz has no energy, no forces; energy"),
        ({"energy": np.nan}, "result.extxyz has no energy; energy, forces and stress are needed"),
        ({"energy": np.inf}, "not finite: energy"),
        ({"cbm": None}, "no band_gap, no vbm, no cbm, but these labels are needed"),
        ({"partial_occupation": None}, "no partial_occupation, but these labels are needed"),
        ({"vbm": None, "cbm": None}, "no band_gap, no vbm, no cbm, but these labels are needed"),
    ],
)
def test_results_that_are_not_complete(refused, bring, changes, named):
    bring(**changes)
    status, reason = refused("result.extxyz")
    assert status is Status.BROKEN
    assert named in reason


def test_results_that_do_not_say_whether_they_converged(root, bring):
    """They are taken, and the summary says so once."""
    for folder in calculations(root):
        bring(folder=folder)
    summary = collect(root, "result.extxyz")
    assert summary.complete
    told = "     3  whose result.extxyz does not tell whether they converged: not checked"
    assert str(summary).splitlines().count(told) == 1


@pytest.mark.parametrize(("said", "status"), [(True, "FINISHED"), (False, "UNCONVERGED")])
def test_results_that_say_whether_they_converged(root, bring, said, status):
    bring(converged=said)
    summary = collect(root, "result.extxyz")
    assert summary.results[0].status is Status[status]
    assert "not checked" not in str(summary)


def test_results_of_another_structure(root, first, refused, bring):
    atoms = calculations(root)[first].atoms
    turned = atoms.copy()
    turned.rotate(90, "z", rotate_cell=True)
    displaced = atoms.copy()
    displaced.positions[0] += 0.01
    for other, named in (
        (atoms[::-1], "has 2 atoms (PAl...); expected AlP in that order"),
        (atoms.repeat((2, 1, 1)), "has 4 atoms"),
        (turned, "has another cell, different by 5.46 Ang"),
        (displaced, "has atom 0 (Al) at another position, 0.0173 Ang away"),
    ):
        bring(other)
        status, reason = refused("result.extxyz")
        assert status is Status.OTHER_STRUCTURE
        assert named in reason


def test_results_that_are_cut_off(root, first, refused, bring):
    bring()
    path = root / first / "result.extxyz"
    path.write_text(path.read_text()[:-40])
    status, _ = refused("result.extxyz")
    assert status is Status.BROKEN
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever the reader raises
        read(path)
