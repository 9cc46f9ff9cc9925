"""The commands of the page for crystals of one's own, in small: metals that EMT knows."""

import re
import shlex
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from hydra.utils import instantiate

from schnetpack_phonon.data import read_labels, read_provenance
from schnetpack_phonon.phonons.force_constants import save_phonopy
from schnetpack_phonon.structures.crystals import Crystal

PAGE = Path(__file__).parents[1] / "examples" / "own_crystals.md"
EMT_LABELS = ("data/calculator=ase", "data.calculator.factory._target_=ase.calculators.emt.EMT")
SMALL = (
    "run.work_dir=.",
    "data.datapath=own.db",  # the default asks Hydra for the choices
    "data.executor.max_workers=1",
    "data.load_properties=[energy_per_atom]",
)
N_FRAMES = 12  # a mean needs 10
FEW = ("data.ensemble.n_snapshots=2", "data.ensemble.temperatures=[300]")
METALS = {"MgO": "Cu", "CaO": "Ag", "Si": "Cu", "Ag3SBr": "Cu", "[2,2,2]": "[1,1,1]"}


def commands(first: str) -> list[list[str]]:
    """Options of the commands of the page that start so."""
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(first)]


TRAININGS = commands("spktrain")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Those that the commands name."""
    monkeypatch.chdir(tmp_path)
    crystal = Crystal("Cu", bulk("Cu", cubic=True), [1, 1, 1])
    for name, metal in (("Cu.vasp", "Cu"), ("Ag.vasp", "Ag"), ("POSCAR", "Cu")):
        ase.io.write(name, bulk(metal, cubic=True), format="vasp")
    springs = np.einsum("ij,ab->ijab", np.eye(4) - 0.25, 5 * np.eye(3))
    save_phonopy(crystal, springs, Path("phonopy_disp.yaml"))
    frames, rng = [], np.random.default_rng(0)
    for _ in range(N_FRAMES):
        atoms = crystal.supercell
        atoms.positions += rng.normal(0, 0.05, (4, 3))
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.info["band_gap"] = rng.uniform(1, 2)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    ase.io.write("md.extxyz", frames)
    return tmp_path


def of_metals(options: list[str]) -> list[str]:
    text = "\n".join(options)
    for ours, metal in METALS.items():
        text = text.replace(ours, metal)
    return text.splitlines()


@pytest.mark.parametrize("k", range(len(TRAININGS)))
def test_every_command_makes_its_database(k, files, compose_train):
    options = of_metals(TRAININGS[k])
    labelled = "data/ensemble=labelled" in options
    small = ["data.ensemble.frames_per_parent=1"] if labelled else [*EMT_LABELS, *FEW]
    if not {"data/phonons=phonopy", "data/structure=mean"} & set(options):
        small.append("data.structure.supercell=[1,1,1]")
    replaced = {own.partition("=")[0] for own in small}
    options = [own for own in options if own.partition("=")[0] not in replaced]
    config = compose_train(*options, *SMALL, *small)
    data = instantiate(config.data)
    data.prepare_data()
    structures = read_provenance(data.datapath)["structure"]
    counts = structures.value_counts().to_dict()
    assert counts == ({"Cu": N_FRAMES} if labelled else dict.fromkeys(structures.unique(), 2))
    assert ("band_gap" in read_labels(data.datapath)) == labelled
