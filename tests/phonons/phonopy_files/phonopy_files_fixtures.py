"""Crystals of springs and files of phonopy for them."""

from functools import partial

import numpy as np
from ase import units
from phonopy import Phonopy
from phonopy.file_IO import (
    write_FORCE_CONSTANTS,
    write_force_constants_to_hdf5,
    write_FORCE_SETS,
)
from phonopy.harmonic.force_constants import full_fc_to_compact_fc

from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.phonons.force_constants_fixtures import (
    phonopy_of,
    save,
)

HARTREE_FORCE, RYDBERG_FORCE = units.Hartree / units.Bohr, units.Rydberg / units.Bohr


def with_random_forces(crystal, force_constants) -> Phonopy:
    """All atoms displaced in each of 20 supercells."""
    phonon = phonopy_of(crystal)
    u = np.random.default_rng(0).normal(0, 0.01, (20, len(phonon.supercell), 3))
    forces = -np.einsum("ijab,njb->nia", force_constants, u)
    phonon.dataset = {"displacements": u, "forces": forces}
    return phonon


# What follows writes a phonopy file, and perhaps others beside it, and returns its path.


def params_with_force_constants(folder, phonon, k):
    save(phonon, folder / "phonopy_params.yaml", force_constants=k)
    return folder / "phonopy_params.yaml"


def params_with_force_sets(folder, phonon, k):
    save(phonon, folder / "phonopy_params.yaml", force_sets=True)
    return folder / "phonopy_params.yaml"


def displacements_beside_force_sets(folder, phonon, k):
    write_FORCE_SETS(phonon.dataset, folder / "FORCE_SETS")
    save(phonon, folder / "phonopy_disp.yaml")
    return folder / "phonopy_disp.yaml"


def cells_beside(name, compact, folder, phonon, k):
    write = write_FORCE_CONSTANTS if name == "FORCE_CONSTANTS" else write_force_constants_to_hdf5
    if compact:
        k = full_fc_to_compact_fc(phonon.primitive, k)
        write(k, folder / name, p2s_map=phonon.primitive.p2s_map)
    else:
        write(k, folder / name)
    save(phonon, folder / "phonopy.yaml")
    return folder / "phonopy.yaml"


cells_beside_force_constants = partial(cells_beside, "FORCE_CONSTANTS", False)


cells_beside_hdf5 = partial(cells_beside, "force_constants.hdf5", False)


def pair_springs(crystal) -> np.ndarray:
    """A spring for each near pair; its stiffness is the squared distance."""
    atoms = crystal.supercell
    vectors = atoms.get_all_distances(mic=True, vector=True)
    near = (np.linalg.norm(vectors, axis=2) < 2.9)[..., None, None]
    blocks = -vectors[..., :, None] * vectors[..., None, :] * near
    blocks[range(len(atoms)), range(len(atoms))] -= blocks.sum(axis=1)
    return blocks


def changed(crystal, **changes) -> Crystal:
    atoms = crystal.unitcell.copy()
    if "symbol" in changes:
        atoms.symbols[4] = changes["symbol"]
    if "shift" in changes:
        atoms.positions[4] += changes["shift"]
    if "scale" in changes:
        atoms.set_cell(atoms.cell * changes["scale"], scale_atoms=True)
    matrix = supercell_matrix(changes.get("supercell", [1, 1, 1]))
    return Crystal("mine", atoms, matrix)
