"""Relaxed crystals, their force constants, and what is part of their identity."""

import logging
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import ase.db
import ase.io
import numpy as np
import phonopy
import pytest
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.calculators.espresso import Espresso
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.data.preparation import Recipe, prepare
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.ensembles.trajectory import FileEnsemble
from schnetpack_phonon.labels.labelling import label_key
from schnetpack_phonon.phonons.force_constants import (
    FiniteDisplacements,
    harmonic_models,
    save_phonopy,
)
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.phonons.phonopy_files import PhonopyFiles
from schnetpack_phonon.structures.crystals import Antiperovskites, Crystal
from schnetpack_phonon.structures.files import StructureFile
from tests.data.data_fixtures import ALLOYS, ensemble_data
from tests.data.preparation.preparation_fixtures import no_labeller


def test_lattice_is_relaxed_and_ideal_crystal_stored(built):
    with ase.db.connect(built.datapath) as db:
        row = db.get(1)
    ideal = row.toatoms()
    ideal.positions = row.data[properties.ideal_positions]
    ideal.calc = EMT()
    assert np.abs(ideal.get_forces()).max() < 1e-3
    assert np.abs(ideal.get_stress()).max() < 1e-3
    assert np.abs(ideal.positions - row.positions).max() > 1e-2
    np.testing.assert_allclose(ideal.positions.mean(axis=0), row.positions.mean(axis=0))


def test_force_constants_are_stored_for_phonopy(built):
    files = list((Path(built.datapath).parent / "phonons").glob("*/phonopy_params.yaml"))
    assert len(files) == len(ALLOYS)
    for file in files:
        phonon = phonopy.load(file, is_compact_fc=False, log_level=0)
        assert phonon.force_constants.shape == (40, 40, 3, 3)


@pytest.mark.parametrize("min_frequency", [0.0, 8.0])
def test_changed_real_modes_are_warned_of(
    tmp_path, caplog, rock_salt, stable, model, min_frequency
):
    instabilities = Instabilities(min_frequency=min_frequency)
    models = harmonic_models([rock_salt], [300.0], {"NaCl": stable}, instabilities)
    phonons = SimpleNamespace(models=lambda *_: models, settings={}, calculator=None)
    structure = SimpleNamespace(crystals=[rock_salt], relax=False, calculator=None)
    ensemble = PhononEnsemble([300], n_snapshots=1, seed=0)
    recipe = Recipe(structure, phonons, ensemble, AseCalculator(EMT))
    with caplog.at_level(logging.WARNING):
        prepare(recipe, no_labeller(), tmp_path)
    n_real = (model.frequencies < min_frequency).sum()
    assert (n_real > 0) == (min_frequency > 0)
    expected = [f"NaCl: {n_real} of 45 modes are real but below"] if n_real else []
    assert [record.message.partition(" data.")[0] for record in caplog.records] == expected


class _NoLattice(EMT):
    def calculate(self, atoms, *args, **kwargs):
        raise CalculationFailed("no lattice")


def test_lattice_that_cannot_be_relaxed(tmp_path):
    data = ensemble_data(
        tmp_path,
        RandomEnsemble([0.1], n_snapshots=2, seed=1),
        AseCalculator(_NoLattice),
        structure=Antiperovskites(["Cu3PdAu"], lattice_constants=ALLOYS),
    )
    with pytest.raises(LabellingError, match=r"of Cu3PdAu failed: .*no lattice.*calculators\.md"):
        data.prepare_data()


@pytest.mark.parametrize(("relax", "warned"), [(False, True), (True, False)])
def test_crystals_that_look_unrelaxed(tmp_path, caplog, relax, warned):
    """A lattice constant 10 % too long, taken as it is or relaxed."""
    structure = Antiperovskites(
        ["Cu3PdAu"], relax=relax, lattice_constants={"Cu3PdAu": 1.02 * ALLOYS["Cu3PdAu"]}
    )
    data = ensemble_data(
        tmp_path, RandomEnsemble([0.1], n_snapshots=2, seed=1), structure=structure
    )
    with caplog.at_level(logging.WARNING):
        data.prepare_data()
    assert ("Cu3PdAu: looks unrelaxed" in caplog.text) == warned


# What identifies a database. Each input below is a small study: a crystal from a file with force
# constants, trajectory, pseudopotentials and a trained potential beside it.


def study(folder: Path) -> dict[str, Path]:
    """Files of a study in a new folder."""
    folder.mkdir(parents=True)
    files = {
        "structure": folder / "crystal.extxyz",
        "frames": folder / "md.extxyz",
        "phonopy": folder / "phonopy_params.yaml",
        "pseudopotential": folder / "Cu.upf",
        "potential": folder / "potential.model",
    }
    atoms = bulk("Cu", cubic=True)
    ase.io.write(files["structure"], atoms)
    ase.io.write(files["frames"], [atoms, atoms])
    save_phonopy(
        Crystal("Cu4", atoms, np.eye(3, dtype=int)), np.zeros((4, 4, 3, 3)), files["phonopy"]
    )
    for name in ("pseudopotential", "potential"):
        files[name].write_text(name)
    return files


def identity(files: dict[str, Path], **changed) -> list:
    """Settings of databases of a study with each kind of part, and keys of labels."""
    options = {
        "supercell": [1, 1, 1],
        "instabilities": Instabilities("floor", 1.0),
        "distance": 0.03,
        "seed": 1,
        "every": 1,
        "ecutwfc": 40.0,
        "asap_cutoff": False,
        "command": "pw.x",
    } | changed
    structure = StructureFile(str(files["structure"]), options["supercell"], "copper")
    phonons = [
        FiniteDisplacements(options["instabilities"], options["distance"]),
        PhonopyFiles(str(files["phonopy"]), options["instabilities"]),
    ]
    ensembles = [
        PhononEnsemble([300], n_snapshots=2, seed=options["seed"]),
        FileEnsemble(str(files["frames"]), 2, 300.0, every=options["every"]),
    ]
    pseudopotential = files["pseudopotential"]
    espresso = Espresso(
        {"Cu": pseudopotential.name},
        str(pseudopotential.parent),
        options["ecutwfc"],
        400.0,
        command=options["command"],
    )
    calculators = [
        AseCalculator(partial(EMT, asap_cutoff=options["asap_cutoff"])),
        AseCalculator(partial(EMT, potential=str(files["potential"]))),
        espresso,
    ]
    (crystal,) = structure.crystals
    parts = product(phonons, ensembles, calculators)
    return [
        *(Recipe(structure, *own).settings for own in parts),
        *(label_key(c.settings, "of one version", crystal.supercell) for c in calculators),
    ]


def rewritten(change, name="structure"):
    """A change of a structure file, as one of the files of a study."""

    def apply(files):
        frames = ase.io.read(files[name], ":")
        for atoms in frames:
            change(atoms)
        ase.io.write(files[name], frames, **KEEP)

    return apply


KEEP = {"format": "extxyz"}


def text_of(name, old, new):
    def apply(files):
        text = files[name].read_text()
        assert old in text
        files[name].write_text(text.replace(old, new))

    return apply


IDENTIFYING = {
    "cell": rewritten(lambda atoms: atoms.set_cell(1.01 * atoms.cell)),
    "position": rewritten(lambda atoms: atoms.positions.__iadd__([[0.01, 0, 0], *[[0] * 3] * 3])),
    "species": rewritten(lambda atoms: atoms.symbols.__setitem__(0, "Au")),
    "isotope": rewritten(lambda atoms: atoms.set_masses([65.0, *[63.546] * 3])),
    "magnetic moment": rewritten(lambda atoms: atoms.set_initial_magnetic_moments([1, -1, 1, -1])),
    "supercell": {"supercell": [2, 1, 1]},
    "force constants": text_of("phonopy", "0.0000000", "0.0000001"),
    "mass in the phonopy file": text_of("phonopy", "mass: 63.546", "mass: 65.546"),
    "distance": {"distance": 0.01},
    "policy": {"instabilities": Instabilities("abs")},
    "frames": rewritten(lambda atoms: atoms.rattle(0.01), "frames"),
    "every": {"every": 2},
    "seed": {"seed": 2},
    "content of a pseudopotential": text_of("pseudopotential", "p", "q"),
    "content of a potential": text_of("potential", "p", "q"),
    "setting of DFT": {"ecutwfc": 50.0},
    "setting of a potential": {"asap_cutoff": True},
}


@pytest.mark.parametrize("change", IDENTIFYING.values(), ids=IDENTIFYING)
def test_whatever_changes_a_number_is_part_of_the_identity(tmp_path, change):
    before = identity(study(tmp_path / "a"))
    files = study(tmp_path / "b")
    if callable(change):
        change(files)
        change = {}
    assert identity(files, **change) != before


REFUSED = {
    "charges": (lambda atoms: atoms.set_initial_charges([1, -1, 0, 0]), "has charges"),
    "tags": (lambda atoms: atoms.set_tags([1, 0, 0, 0]), "has tags"),
    "spin-orbit": (
        lambda atoms: atoms.set_initial_magnetic_moments(np.eye(4, 3)),
        r"moments of shape \(4, 3\).*collinear",
    ),
    "masses": (lambda atoms: atoms.set_masses([0.0, *[63.546] * 3]), r"mass of atom 0 \(Cu\) is 0"),
    "constraints": (
        lambda atoms: atoms.set_constraint(FixAtoms([0])),
        r"has constraints \(FixAtoms\), such as selective dynamics",
    ),
}


@pytest.mark.parametrize(("change", "named"), REFUSED.values(), ids=REFUSED)
def test_whatever_cannot_be_used_is_refused(tmp_path, change, named):
    files = study(tmp_path / "a")
    files["structure"] = files["structure"].with_suffix(".traj")  # ASE's own format keeps all
    atoms = bulk("Cu", cubic=True)
    change(atoms)
    ase.io.write(files["structure"], atoms)
    with pytest.raises(ValueError, match=f"crystal.traj.*{named}"):
        identity(files)
    with pytest.raises(ValueError, match=f"copper.*{named}"):
        Crystal("copper", atoms, np.eye(3, dtype=int))


def test_whatever_changes_no_number_is_not(tmp_path):
    """Where files lie and how they are called, natural masses, how the code is started."""
    before = identity(study(tmp_path / "a"))
    files = study(tmp_path / "elsewhere" / "c")
    for name, file in files.items():
        files[name] = file.rename(file.with_stem(f"my_{file.stem}"))
    rewritten(lambda atoms: atoms.set_masses(atoms.get_masses()))(files)
    rewritten(lambda atoms: atoms.set_initial_magnetic_moments([0.0] * 4))(files)
    assert identity(files, command="mpirun -n 2 pw.x") == before


def test_masses_change_no_label(tmp_path):
    files = study(tmp_path / "a")
    *_, one, two, three = identity(files)
    IDENTIFYING["isotope"](files)
    assert identity(files)[-3:] == [one, two, three]
    IDENTIFYING["magnetic moment"](files)
    assert not {one, two, three} & set(identity(files)[-3:])
