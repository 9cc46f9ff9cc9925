"""Snapshots from files: cells, images and orders of atoms, and errors."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from schnetpack_phonon.common.errors import UnreadableFileError
from schnetpack_phonon.ensembles.base import planned_parents
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.trajectory import FileEnsemble
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from schnetpack_phonon.structures.elasticity import strained, voigt_to_tensor
from tests.ensembles.ensemble_fixtures import first


@pytest.fixture(scope="module")
def al_crystal() -> Crystal:
    """Three different cell vectors, skewed; 18 atoms of two species."""
    vectors = [[2.9, 0, 0], [0.4, 3.1, 0], [0.2, -0.3, 3.4]]
    sites = [(0, 0, 0), (0.5, 0.45, 0.5)]
    cell = Atoms("AlCu", scaled_positions=sites, cell=vectors, pbc=True)
    return Crystal("AlCu", cell, supercell_matrix([3, 3, 1]))


@pytest.fixture(scope="module")
def written(al_crystal):
    """20 snapshots of 18 atoms with displacements up to 0.4 Ang."""
    options = {"n_snapshots": 20, "seed": 3, "min_distance": 0.0}
    ensemble = RandomEnsemble([0.4], "uniform", **options)
    return first(ensemble, al_crystal, al_crystal.supercell, 20)


def wrapped(atoms: Atoms, rng) -> Atoms:
    atoms.wrap()
    return atoms


def drifted(atoms: Atoms, rng) -> Atoms:
    """As molecular dynamics without a fixed centre ends: anywhere, and back in the cell."""
    atoms.positions += rng.uniform(-20, 20, 3)
    atoms.wrap()
    return atoms


def unwrapped(atoms: Atoms, rng) -> Atoms:
    """As other codes write: each atom in whichever cell."""
    atoms.positions += rng.integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    return atoms


def without_cell(atoms: Atoms, rng) -> Atoms:
    atoms.set_cell(None)
    atoms.pbc = False
    return atoms


@pytest.mark.parametrize(
    "change", [lambda atoms, rng: atoms, wrapped, drifted, unwrapped, without_cell]
)
def test_round_trip(tmp_path, al_crystal, written, change):
    rng = np.random.default_rng(0)
    frames = [change(s.atoms.copy(), rng) for s in written]
    ase.io.write(tmp_path / "md.xyz", frames, format="extxyz")
    ensemble = FileEnsemble(str(tmp_path / "md.xyz"), 20, 450)
    back = first(ensemble, al_crystal, al_crystal.supercell, 21)
    assert len(back) == 20
    for before, after in zip(written, back, strict=True):
        np.testing.assert_allclose(after.atoms.positions, before.atoms.positions, atol=2e-6)
        np.testing.assert_allclose(after.ideal.positions, before.ideal.positions, atol=2e-6)
        np.testing.assert_allclose(after.atoms.cell.array, before.atoms.cell.array, atol=1e-6)
        np.testing.assert_array_equal(after.atoms.numbers, before.atoms.numbers)
        np.testing.assert_array_equal(after.atoms.get_masses(), before.atoms.get_masses())
        assert after.atoms.pbc.all()


@pytest.mark.parametrize("change", [lambda atoms, rng: atoms, drifted])
def test_strained_cell(tmp_path, al_crystal, written, change):
    """As at constant pressure: the ideal crystal is strained along."""
    rng = np.random.default_rng(0)
    eps = [voigt_to_tensor(rng.uniform(-0.04, 0.04, 6)) for _ in written]
    before = [
        (strained(s.atoms, e), strained(s.ideal, e)) for s, e in zip(written, eps, strict=True)
    ]
    frames = [change(atoms.copy(), rng) for atoms, _ in before]
    ase.io.write(tmp_path / "npt.xyz", frames, format="extxyz")
    ensemble = FileEnsemble(str(tmp_path / "npt.xyz"), 20, 450)
    back = first(ensemble, al_crystal, al_crystal.supercell, 20)
    for (atoms, ideal), after in zip(before, back, strict=True):
        np.testing.assert_allclose(after.ideal.cell.array, ideal.cell.array, atol=2e-6)
        u = atoms.positions - ideal.positions
        found = after.atoms.positions - after.ideal.positions
        np.testing.assert_allclose(found, u - u.mean(axis=0), atol=4e-6)


def test_what_a_snapshot_says(tmp_path, al_crystal, written):
    """Ten successive frames are one family."""
    ase.io.write(tmp_path / "md.xyz", [s.atoms for s in written], format="extxyz")
    ensemble = FileEnsemble("md.xyz", 5, 450, frames_per_parent=8, work_dir=str(tmp_path))
    snapshots = first(ensemble, al_crystal, al_crystal.supercell, 20)
    assert {(s.structure, s.kind, s.parameter_name, s.parameter) for s in snapshots} == {
        ("AlCu", "file", "temperature", 450.0)
    }
    assert [s.index for s in snapshots] == list(range(20))
    families = [s.parent for s in snapshots]
    assert [families.count(p) for p in dict.fromkeys(families)] == [8, 8, 4]
    planned = planned_parents(FileEnsemble("x", 20, 450, frames_per_parent=8), [al_crystal])
    assert [planned.count(p) for p in dict.fromkeys(planned)] == [8, 8, 4]
    assert ensemble.temperatures == []
    assert ensemble.temperature(450.0) is None
    assert (ensemble.parameters, ensemble.n_snapshots) == ([450.0], 5)


def test_every_and_skip(tmp_path, al_crystal, written):
    ase.io.write(tmp_path / "md.xyz", [s.atoms for s in written], format="extxyz")
    ensemble = FileEnsemble(str(tmp_path / "md.xyz"), 5, 450, every=3, skip=4)
    snapshots = first(ensemble, al_crystal, al_crystal.supercell, 20)
    for snapshot, before in zip(snapshots, written[4::3], strict=True):
        np.testing.assert_allclose(snapshot.atoms.positions, before.atoms.positions, atol=2e-6)


def test_paths(tmp_path, al_crystal, written):
    """One file a crystal; other braces and brackets are just characters."""
    folder = tmp_path / "run {3} [a]"
    folder.mkdir()
    ase.io.write(folder / "AlCu.xyz", written[0].atoms, format="extxyz")
    ensemble = FileEnsemble("{name}.xyz", 1, 450, work_dir=str(folder))
    assert len(first(ensemble, al_crystal, al_crystal.supercell, 5)) == 1
    before = ensemble.settings
    assert FileEnsemble("{name}.xyz", 1, 450, work_dir=str(folder)).settings == before
    ase.io.write(folder / "AlCu.xyz", written[1].atoms, format="extxyz")
    assert ensemble.settings != before


def write(tmp_path, *frames) -> FileEnsemble:
    ase.io.write(tmp_path / "md.xyz", frames, format="extxyz")
    return FileEnsemble(str(tmp_path / "md.xyz"), 1, 300)


def test_number_of_atoms(tmp_path, al_crystal, written):
    ensemble = write(tmp_path, written[0].atoms[:-1])
    with pytest.raises(ValueError, match=r"frame 0 of .*md.xyz has 17 atoms; .* has 18"):
        first(ensemble, al_crystal, al_crystal.supercell, 1)


def test_other_elements(tmp_path, al_crystal, written):
    atoms = written[0].atoms.copy()
    atoms.symbols[3] = "Cu"
    with pytest.raises(ValueError, match=r"frame 0 of .* is Al8Cu10; .* is Al9Cu9"):
        first(write(tmp_path, atoms), al_crystal, al_crystal.supercell, 1)


def test_order_of_atoms(tmp_path, al_crystal, written, caplog):
    """Any order is that of the supercell afterwards; the log says so once."""
    caplog.set_level("INFO")
    order = np.random.default_rng(2).permutation(18)
    ensemble = write(tmp_path, *(s.atoms[order] for s in written[:3]))
    back = first(ensemble, al_crystal, al_crystal.supercell, 3)
    for before, after in zip(written, back, strict=False):
        np.testing.assert_allclose(after.atoms.positions, before.atoms.positions, atol=2e-6)
    assert [m for m in caplog.messages if "in another order" in m] == [
        f"frame 0 of {tmp_path / 'md.xyz'} has its atoms in another order than the supercell: "
        "found by their positions"
    ]


def test_diffusion(tmp_path):
    """Beyond the neighbours' distance, 2.86 Ang; a displacement of 0.9 Ang is no hop."""
    crystal = Crystal("Al", bulk("Al", "fcc", a=4.05, cubic=True), supercell_matrix([2, 2, 2]))
    atoms = crystal.supercell
    atoms.positions[5, 1] += 0.9
    assert len(first(write(tmp_path, atoms), crystal, crystal.supercell, 2)) == 1
    for step in (3.1,):
        atoms.positions[5, 1] = crystal.supercell.positions[5, 1] + step
        with pytest.raises(ValueError, match=r"atom 5 \(Al\) is .* they diffuse"):
            first(write(tmp_path, atoms), crystal, crystal.supercell, 1)


def test_other_cell(tmp_path, al_crystal, written):
    atoms = written[0].atoms.copy()
    atoms.set_cell(atoms.cell.array * [1.3, 1, 1], scale_atoms=True)
    ensemble = write(tmp_path, atoms)
    with pytest.raises(ValueError, match=r"strained by 0.30 .*; expected at most 0.2"):
        first(ensemble, al_crystal, al_crystal.supercell, 1)


def test_no_file(tmp_path, al_crystal):
    ensemble = FileEnsemble("{name}.xyz", 1, 300, work_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"no trajectory at .*AlCu.xyz: set data.ensemble.path"):
        first(ensemble, al_crystal, al_crystal.supercell, 1)


@pytest.mark.parametrize(
    ("option", "least"),
    [("n_snapshots", 1), ("every", 1), ("skip", 0), ("frames_per_parent", 1)],
)
def test_option_errors(option, least):
    options = {"path": "md.xyz", "n_snapshots": 1, "temperature": 300, option: least - 1}
    with pytest.raises(ValueError, match=f"{option} is {least - 1}; expected >= {least}"):
        FileEnsemble(**options)


def test_format_that_the_name_does_not_tell(tmp_path, al_crystal, written):
    """Of a renamed file; the message names the option."""
    frames = [s.atoms for s in written[:2]]
    ase.io.write(tmp_path / "md.history", frames, format="extxyz")
    ensemble = FileEnsemble(str(tmp_path / "md.history"), 2, 300, format="extxyz")
    assert len(first(ensemble, al_crystal, al_crystal.supercell, 3)) == 2
    (tmp_path / "md.history").write_text("18 atoms\n")
    ensemble = FileEnsemble(str(tmp_path / "md.history"), 2, 300)
    named = r"cannot read .*md\.history: .*; set data\.ensemble\.format if"
    with pytest.raises(UnreadableFileError, match=named):
        first(ensemble, al_crystal, al_crystal.supercell, 1)


def test_moments_are_those_of_the_structure(tmp_path):
    """Frames of another magnetic order are refused; those without any say nothing."""
    atoms = bulk("Cr", a=2.9, cubic=True)
    frame = atoms.copy()
    atoms.set_initial_magnetic_moments([1.0, -1.0])
    crystal = Crystal("Cr", atoms, supercell_matrix([1, 1, 1]))
    ensemble = FileEnsemble(str(tmp_path / "md.traj"), 1, 300.0)
    for moments in (None, [2.1, -2.0]):
        frame.set_initial_magnetic_moments(moments)
        ase.io.write(tmp_path / "md.traj", frame)
        (snapshot,) = ensemble.snapshots(crystal, crystal.supercell, 300.0)
        np.testing.assert_array_equal(snapshot.atoms.get_initial_magnetic_moments(), [1.0, -1.0])
    frame.set_initial_magnetic_moments([2.0, 2.0])
    ase.io.write(tmp_path / "md.traj", frame)
    with pytest.raises(ValueError, match=r"frame 0 of .*md.traj has magnetic moments on 2 atoms"):
        list(ensemble.snapshots(crystal, crystal.supercell, 300.0))
