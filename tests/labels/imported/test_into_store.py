"""Finished calculations get into the store, under the right keys, or the reason is said."""

import re
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from functools import partial

import ase.io
import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.spatial.transform import Rotation

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.common.errors import LabellingError, MissingLabelsError
from schnetpack_phonon.data.export import export
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.labels.imported.into_store import import_labels
from schnetpack_phonon.labels.labelling import Planner, label_job
from schnetpack_phonon.labels.store import LabelStore
from tests.calculators.code_fixtures import CODES
from tests.labels.offline_fixtures import make_generation

PAIRS = AseCalculator(partial(LennardJones, sigma=2.1, rc=6.0))
ROTATION = Rotation.from_rotvec([0.3, 0.5, -0.7]).as_matrix()


def generation(folder, calculator=PAIRS, seed=1):
    ensemble = PhononEnsemble([300], n_snapshots=3, seed=seed)
    return make_generation(folder, ensemble, calculator)


def imported(made, *files, **options) -> str:
    ideals = {c.name: c.supercell for c in made.recipe.structure.crystals}
    store = LabelStore(made.label_store)
    calculators = [made.recipe.calculator, *made.recipe.other_calculators.values()]
    return import_labels(made.planner, calculators, ideals, store, files, **options)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A database and its labels as extended XYZ: an ideal crystal, two displacements and three."""
    folder = tmp_path_factory.mktemp("elsewhere")
    made = generation(folder)
    made.ensure()
    export(made.label_store, folder / "labels.extxyz")
    return made.datapath, folder / "labels.extxyz"


def foreign(path, target, change=lambda atoms, labels: None, prefix=""):
    """The frames as another program writes them: no keys, labels in a comment line."""
    frames = []
    for atoms in ase.io.read(path, ":"):
        labels = dict(atoms.calc.results)
        atoms.calc, atoms.info = None, {}
        change(atoms, labels)
        if prefix:
            atoms.arrays[f"{prefix}forces"] = labels.pop("forces")
            atoms.info = {f"{prefix}{k}": v for k, v in labels.items()}
        else:
            atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    ase.io.write(target, frames)
    return target


def moved(atoms, labels):
    """Rotated, drifted, in other images."""
    atoms.set_cell(atoms.cell.array @ ROTATION, scale_atoms=True)
    atoms.positions += [0.3, -0.2, 0.1] + np.array([[0, 2, 0], [1, 0, -1]]) @ atoms.cell.array
    labels["forces"] = labels["forces"] @ ROTATION
    full = [[0, 5, 4], [5, 1, 3], [4, 3, 2]]
    stress = ROTATION.T @ labels["stress"][full] @ ROTATION
    labels["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


@pytest.mark.parametrize("change", [None, lambda *_: None, moved], ids=["ours", "other", "moved"])
def test_generation_finds_what_was_imported(tmp_path, labelled, change):
    """All labels, those of force constants first; nothing is calculated afterwards."""
    datapath, path = labelled
    file = path if change is None else foreign(path, tmp_path / "theirs.extxyz", change)
    made = generation(tmp_path)
    text = imported(made, file)
    assert "6 frames, 6 stored, 0 already there, 0 not part of the ensemble, 0 refused" in text
    assert "all labels are in the store" in text
    assert ("6 of files that tell neither version nor settings" in text) == (change is not None)
    replace(made, executor=Executor).ensure()  # which computes nothing
    for one, two in zip(read_rows(datapath), read_rows(made.datapath), strict=True):
        np.testing.assert_allclose(one.atoms.positions, two.atoms.positions, atol=2e-5)
        for key in ("energy", "forces", "stress"):
            np.testing.assert_allclose(one.data[key], two.data[key], atol=1e-4)
    record = next(map(LabelStore(made.label_store).__getitem__, LabelStore(made.label_store)))
    assert record.origin == f"{file}, frame 0"
    export(made.label_store, tmp_path / "again.extxyz")
    assert ase.io.read(tmp_path / "again.extxyz", 0).info["origin"] == record.origin
    before = made.label_store.read_bytes()
    assert "0 stored, 6 already there" in imported(made, file)
    assert made.label_store.read_bytes() == before


def test_other_names(tmp_path, labelled):
    file = foreign(labelled[1], tmp_path / "ref.extxyz", prefix="REF_")
    made = generation(tmp_path)
    with pytest.raises(LabellingError, match=r"set --prefix=REF_"):
        imported(made, file)
    assert "6 stored" in imported(made, file, prefix="REF_")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calculator": AseCalculator(partial(LennardJones, sigma=2.2, rc=6.0))}, "other settings"),
        ({"calculator": CODES["CP2K"].make(version="2023.1")}, "no band_gap, no vbm"),
    ],
)
def test_other_settings_are_refused(tmp_path, labelled, options, message):
    made = generation(tmp_path, **options)
    with pytest.raises(LabellingError, match=rf"(?s)no label was stored.*refused.*{message}"):
        imported(made, labelled[1])
    assert not made.label_store.exists()


def test_other_snapshots_are_named_with_the_nearest(tmp_path, labelled):
    """And what is still missing."""
    made = generation(tmp_path, seed=2)
    text = imported(made, labelled[1])
    assert "6 frames, 3 stored, 0 already there, 3 not part of the ensemble" in text
    near = r"frame 4 of .*: 0\.\d+ Ang from the nearest structure, \w"
    assert re.search(near, text)
    assert "phonon ensemble: 3 labels are still missing" in text


def test_labels_that_differ_from_the_stored(tmp_path, labelled):
    def shifted(atoms, labels):
        labels["energy"] += 1.0

    made = generation(tmp_path)
    imported(made, labelled[1])
    before = made.label_store.read_bytes()
    with pytest.raises(LabellingError, match="in the store with other labels: energy differs by 1"):
        imported(made, foreign(labelled[1], tmp_path / "other.extxyz", shifted))
    assert made.label_store.read_bytes() == before


def planned(store, *jobs):
    """As generation does."""

    def planner():
        found = Planner(LabelStore(store.path))
        with suppress(MissingLabelsError):
            found.run(jobs, "ensemble")
        return found

    return planner


@pytest.mark.parametrize(
    ("options", "version", "message"),
    [
        ({}, "6.4.3", None),
        ({"ediff": 1e-5}, "6.4.3", "EDIFF is 0.00000100; expected 1e-05"),
        ({}, "6.3.0", "it is of VASP 6.4.3; expected VASP 6.3.0: set data.calculator.version"),
    ],
)
def test_output_of_a_code(store, options, version, message):
    """Version and settings as the output tells them; atoms as VASP sorts them."""
    code = CODES["VASP"]
    calculator = code.make(version=version, **options)
    job = label_job(calculator, code.atoms, "snapshot 0")
    file = code.stored("mesh") / "vasprun.xml"
    given = (planned(store, job), [calculator], {"AlAs": code.atoms}, store, [file])
    if message:
        with pytest.raises(LabellingError, match=message):
            import_labels(*given)
        assert not store.path.exists()
        return
    assert "1 files: 1 frames, 1 stored" in import_labels(*given)
    record = store[job.key]
    assert record.origin == f"{file}, frame 0, VASP 6.4.3"
    expected = calculator.read_output(code.stored("mesh"), code.atoms)
    np.testing.assert_allclose(record.labels["forces"], expected["forces"], atol=1e-6)
    np.testing.assert_allclose(record.labels["vbm"], expected["vbm"], atol=1e-6)


def test_force_constants_of_another_calculator(tmp_path):
    """Its labels are imported, too; those of a structure that both label need a file that tells."""
    other = AseCalculator(partial(LennardJones, sigma=2.2, rc=6.0))

    def made(folder):
        found = generation(folder)
        found.recipe.phonons.calculator = other
        return found

    (tmp_path / "elsewhere").mkdir()
    theirs = made(tmp_path / "elsewhere")
    theirs.ensure()
    export(theirs.label_store, tmp_path / "labels.extxyz")
    ours = made(tmp_path)
    assert ours.recipe.other_calculators == {"phonons": other}
    assert "6 frames, 6 stored" in imported(ours, tmp_path / "labels.extxyz")
    assert ours.label_store.read_text() != ""
    stored, expected = (LabelStore(each.label_store) for each in (ours, theirs))
    assert set(stored) == set(expected)
    for key in expected:
        np.testing.assert_allclose(stored[key].labels["energy"], expected[key].labels["energy"])


def test_file_that_does_not_tell_of_which_calculator_it_is(tmp_path, store):
    """The same structure is to be labelled by both."""
    one, two = PAIRS, AseCalculator(partial(LennardJones, sigma=2.2, rc=6.0))
    atoms = CODES["VASP"].atoms
    jobs = [label_job(calculator, atoms, "ideal crystal") for calculator in (one, two)]
    file = tmp_path / "theirs.extxyz"
    labelled = atoms.copy()
    labelled.calc = one.ase_calculator()
    labelled.get_potential_energy()
    ase.io.write(file, labelled)
    given = (planned(store, *jobs), [one, two], {"AlAs": atoms}, store, [file])
    with pytest.raises(LabellingError, match=r"does not tell whether it is of .* ideal crystal"):
        import_labels(*given)
    assert not store.path.exists()


def test_broken_files_are_listed(tmp_path, store):
    """The others are stored."""
    code = CODES["VASP"]
    calculator = code.make()
    job = label_job(calculator, code.atoms, "snapshot 0")
    good = code.stored("mesh") / "vasprun.xml"
    (tmp_path / "cut.xml").write_bytes(good.read_bytes()[:5000])
    files = [tmp_path / "cut.xml", good]
    text = import_labels(planned(store, job), [calculator], {"AlAs": code.atoms}, store, files)
    assert "2 files: 2 frames, 1 stored, 0 already there, 0 not part of the ensemble, 1 ref" in text
    assert f"frame 0 of {tmp_path / 'cut.xml'}: cannot read" in text
