"""Outputs of CP2K and pw.x as labelled structures."""

import numpy as np
import pytest

from schnetpack_phonon.calculators.base import labels_from_results
from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.labels.imported.frames import FileLabels, read_labelled
from schnetpack_phonon.labels.imported.into_store import import_labels
from schnetpack_phonon.labels.imported.outputs import reader_of
from schnetpack_phonon.labels.labelling import label_job
from tests.calculators.code_fixtures import CODES, output  # noqa: F401
from tests.labels.imported.test_into_store import planned

NAMES = {"CP2K": "label.out", "Quantum ESPRESSO": "label.xml"}


@pytest.mark.parametrize("kind", ["gamma", "mesh"])
@pytest.mark.parametrize("name", NAMES)
def test_labels_are_those_that_the_calculator_reads(name, kind):
    code = CODES[name]
    path = code.stored(kind) / NAMES[name]
    (found,) = read_labelled(path)
    assert found.error is None
    np.testing.assert_array_equal(found.atoms.numbers, code.atoms.numbers)
    np.testing.assert_allclose(found.atoms.positions, code.atoms.positions, atol=1e-6)
    expected = labels_from_results(
        code.atoms, code.make().read_output(code.stored(kind), code.atoms)
    )
    assert found.labels.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found.labels[key], value)
    labels = FileLabels(path)
    assert labels.code_version == f"{name} {code.version}"
    assert labels.settings["code"] == name


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "message"),
    [
        ("CP2K", "PROGRAM ENDED.*", "", "cut off"),
        ("CP2K", r" \*\*\* SCF run converged", " SCF run NOT converged", "did not converge"),
        ("CP2K", "     &CELL", "   RUN_TYPE  MD\n     &CELL", "RUN_TYPE is MD"),
        ("CP2K", "&COORD", "&NO", "no copy of its input: set ECHO_INPUT"),
        ("CP2K", "UNIT angstrom", "UNIT bohr", "positions in bohr; expected angstrom"),
        ("Quantum ESPRESSO", "<convergence_achieved>true", "<convergence_achieved>false", "did no"),
    ],
)
def test_outputs_that_cannot_be_used(name, pattern, replacement, message, output):  # noqa: F811
    folder = output("mesh", pattern, replacement, NAMES[name], name)
    (found,) = read_labelled(folder / NAMES[name])
    assert found.labels == {}
    assert message in found.error
    with pytest.raises(LabellingError, match="no label that can be used"):
        _ = FileLabels(folder / NAMES[name]).frames


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        # Fractions of the cell, and lengths of the cell instead of its vectors.
        (
            r"Al 0\.1788628473 .*?SCALED  F",
            lambda m: (
                "".join(
                    f"{s} {x:.12f} {y:.12f} {z:.12f}\n"
                    for s, (x, y, z) in zip(
                        CODES["CP2K"].atoms.symbols,
                        CODES["CP2K"].atoms.get_scaled_positions(wrap=False),
                        strict=True,
                    )
                )
                + "       SCALED  T"
            ),
        ),
        (
            r"       A  .*?(?=       ALPHA)",
            "".join(
                f" CELL| Vector {n} [angstrom]: {x:.9f} {y:.9f} {z:.9f}  |{n}| = 1.0\n"
                for n, (x, y, z) in zip("abc", CODES["CP2K"].atoms.cell.array, strict=True)
            ),
        ),
    ],
    ids=["scaled", "lengths"],
)
def test_inputs_of_cp2k_in_other_words(pattern, replacement, output):  # noqa: F811
    folder = output("mesh", pattern, replacement)
    (found,) = read_labelled(folder / "label.out")
    assert found.error is None
    np.testing.assert_allclose(found.atoms.positions, CODES["CP2K"].atoms.positions, atol=1e-5)
    np.testing.assert_allclose(found.atoms.cell.array, CODES["CP2K"].atoms.cell.array, atol=1e-5)


def test_mesh_without_gamma(output):  # noqa: F811
    """Lacks the gap there and nothing else; a calculator that needs it refuses."""
    folder = output("mesh", r"(?<=<k_point weight=)(.*?>)(\S+)", r"\g<1>0.123", "label.xml", QE)
    (found,) = read_labelled(folder / "label.xml")
    (whole,) = read_labelled(CODES[QE].stored("mesh") / "label.xml")
    assert whole.labels.keys() - found.labels.keys() == {"band_gap_gamma"}
    copy = output("mesh", "PROGRAM STARTED", "PROGRAM STARTED")
    (copy / "bands").unlink()
    (found,) = read_labelled(copy / "label.out")
    assert "band_gap_gamma" not in found.labels
    assert "band_gap" in found.labels


QE = "Quantum ESPRESSO"


@pytest.mark.parametrize("name", NAMES)
def test_import(name, store):
    """Under whatever name the file has; other settings and versions are refused."""
    code = CODES[name]
    path = code.stored("mesh") / NAMES[name]
    calculator = code.make(version=code.version)
    job = label_job(calculator, code.atoms, "snapshot 0")
    given = ({"crystal": code.atoms}, store, [path])
    assert "1 stored" in import_labels(planned(store, job), [calculator], *given)
    assert store[job.key].origin == f"{path}, frame 0, {name} {code.version}"
    other = code.make(version="1.0")
    job = label_job(other, code.atoms, "snapshot 0")
    with pytest.raises(LabellingError, match=rf"it is of {name} .*; expected {name} 1.0"):
        import_labels(planned(store, job), [other], *given)


def test_other_files_have_other_readers(tmp_path):
    (tmp_path / "POSCAR").write_text("CP2K| version string in a comment\n")
    assert reader_of(tmp_path / "POSCAR") is None
