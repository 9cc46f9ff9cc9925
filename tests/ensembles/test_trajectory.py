"""Strained ensembles, mixtures, and configurations read from files."""

from dataclasses import replace
from itertools import islice

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from schnetpack_phonon.ensembles.base import accepted, snapshot_groups
from schnetpack_phonon.ensembles.fixed import ModeEnsemble
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.mixture import MixtureEnsemble
from schnetpack_phonon.ensembles.strained import StrainedEnsemble
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.ensembles.trajectory import FileEnsemble
from schnetpack_phonon.phonons.harmonic import shortest_distance
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from schnetpack_phonon.structures.elasticity import strained, voigt_to_tensor

OPTIONS = {"n_snapshots": 4, "seed": 1}


def phonon(temperatures=(300.0,), **options) -> PhononEnsemble:
    return PhononEnsemble(temperatures, **(OPTIONS | options))


def random(amplitudes=(0.2,), **options) -> RandomEnsemble:
    return RandomEnsemble(amplitudes, "uniform", **(OPTIONS | options))


def first(ensemble, crystal, source, n) -> list:
    return list(islice(ensemble.snapshots(crystal, source, ensemble.parameters[0]), n))


def strain_of(snapshot, ideal: Atoms) -> np.ndarray:
    return np.linalg.solve(ideal.cell.array, snapshot.atoms.cell.array) - np.eye(3)


class TestStrained:
    @pytest.mark.parametrize("base", [phonon, random])
    def test_strain(self, rock_salt, model, base):
        """Symmetric, within bounds, uniform; snapshot and ideal crystal have the same."""
        source = model if base is phonon else model.ideal
        snapshots = first(StrainedEnsemble(base(), 0.03, seed=2), rock_salt, source, 400)
        found = np.array([strain_of(s, model.ideal) for s in snapshots])
        np.testing.assert_allclose(found, found.transpose(0, 2, 1), atol=1e-6)
        components = found[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        assert 0.0298 < np.abs(components).max() < 0.0300005
        # Mean 0 and variance 1/3 of the square within 5 errors; no two components correlated.
        assert np.abs(components.mean(axis=0)).max() < 5 * 0.03 / np.sqrt(3 * 400)
        np.testing.assert_allclose((components**2).mean(axis=0), 3e-4, rtol=5 * 0.894 / 20)
        assert np.abs(np.corrcoef(components.T) - np.eye(6)).max() < 5 / 20
        for snapshot in snapshots:
            np.testing.assert_array_equal(snapshot.ideal.cell.array, snapshot.atoms.cell.array)

    @pytest.mark.parametrize("base", [phonon, random])
    def test_fractions_of_the_cell_are_kept(self, rock_salt, model, base):
        """Those of the base's snapshot and of its ideal crystal; all else is the base's too."""
        source = model if base is phonon else model.ideal
        plain = first(base(), rock_salt, source, 20)
        for before, after in zip(
            plain, first(StrainedEnsemble(base(), 0.1, seed=2), rock_salt, source, 20), strict=True
        ):
            for one, other in ((before.atoms, after.atoms), (before.ideal, after.ideal)):
                np.testing.assert_allclose(
                    other.get_scaled_positions(wrap=False),
                    one.get_scaled_positions(wrap=False),
                    atol=1e-6,
                )
                np.testing.assert_array_equal(other.get_masses(), one.get_masses())
                np.testing.assert_array_equal(other.numbers, one.numbers)
            assert after.kind == "strained"
            for name in ("parent", "index", "seed", "parameter", "parameter_name", "phonons"):
                assert getattr(after, name) == getattr(before, name)

    def test_longer_stream_begins_with_the_shorter(self, rock_salt, model):
        """Rejected snapshots leave gaps; the strain of the others does not depend on them."""
        many = first(StrainedEnsemble(phonon(), 0.03, 2), rock_salt, model, 130)
        few = first(StrainedEnsemble(phonon(n_snapshots=70), 0.03, 2), rock_salt, model, 70)
        strict = StrainedEnsemble(phonon(max_displacement=0.2), 0.03, 2)
        kept = first(strict, rock_salt, model, 130)
        assert 5 < kept.count(None) < 125
        for others in (few, kept):
            for one, other in zip(many, others, strict=False):
                if other is not None:
                    np.testing.assert_array_equal(one.atoms.cell.array, other.atoms.cell.array)
                    np.testing.assert_array_equal(one.atoms.positions, other.atoms.positions)
        cells = {s.atoms.cell.array.tobytes() for s in many}
        assert len(cells) == 130

    def test_seed(self, rock_salt, model):
        """Of the strain, apart from that of the displacements."""
        one, other = (
            first(StrainedEnsemble(phonon(), 0.03, s), rock_salt, model, 1)[0] for s in (2, 3)
        )
        assert np.abs(one.atoms.cell.array - other.atoms.cell.array).max() > 1e-3
        np.testing.assert_allclose(
            one.atoms.get_scaled_positions(), other.atoms.get_scaled_positions(), atol=1e-6
        )

    def test_each_snapshot_has_its_own_strain(self, rock_salt, model):
        """Mirror images and arrangements of one composition share a parent, but no strain."""
        cells = []
        for ensemble, crystal in (
            (phonon(draws="antithetic"), rock_salt),
            (phonon([100.0]), rock_salt),
            (phonon(), replace(rock_salt, name="Na(Cl,Br)-1", parent="Na(Cl,Br)/0011")),
            (phonon(), replace(rock_salt, name="Na(Cl,Br)-2", parent="Na(Cl,Br)/0011")),
        ):
            snapshots = first(StrainedEnsemble(ensemble, 0.03, 2), crystal, model, 8)
            cells += [s.atoms.cell.array.tobytes() for s in snapshots]
        assert len(set(cells)) == 32

    def test_strain_that_brings_atoms_too_close(self, rock_salt, model):
        """The base's limit, a share of the ideal crystal's distance, holds for what is labelled."""
        base = phonon(min_distance=0.9)
        found = first(StrainedEnsemble(base, 0.05, 2), rock_salt, model, 64)
        shortest = shortest_distance(rock_salt.supercell)
        for snapshot, unstrained in zip(found, first(base, rock_salt, model, 64), strict=True):
            assert snapshot is None or shortest_distance(snapshot.atoms) >= 0.9 * shortest
            assert snapshot is None or snapshot.index == unstrained.index
        rejected = [s is None for s in found]
        assert sum(s is None for s in first(base, rock_salt, model, 64)) < sum(rejected) < 64

    def test_base_says_what_is_needed(self):
        ensemble = StrainedEnsemble(phonon([300, 100]), 0.02, 0)
        assert ensemble.parameters == [300.0, 100.0]
        assert ensemble.temperatures == [100.0, 300.0]
        assert ensemble.temperature(300.0) == 300.0
        assert (ensemble.parameter_name, ensemble.parameter_unit) == ("temperature", "K")
        assert StrainedEnsemble(random(), 0.02, 0).temperature(0.2) is None
        assert ensemble.settings["base"] == phonon([300, 100]).settings

    @pytest.mark.parametrize("strain", [0.0, -0.01, 0.2, float("nan")])
    def test_error(self, strain):
        with pytest.raises(ValueError, match=r"expected 0 < strain < 0\.2"):
            StrainedEnsemble(phonon(), strain, 0)

    def test_number_is_that_of_the_base_unless_given(self):
        assert StrainedEnsemble(phonon(n_snapshots=7), 0.02, 0).n_snapshots == 7
        assert StrainedEnsemble(phonon(n_snapshots=7), 0.02, 0, n_snapshots=3).n_snapshots == 3


class TestMixture:
    def test_fractions(self, rock_salt, model):
        """Of the snapshots of a crystal, shared equally among the parameters of an ensemble."""
        ensemble = MixtureEnsemble(
            {
                "thermal": phonon([100.0, 300.0]),
                "random": random([0.1]),
                "strained": StrainedEnsemble(phonon([200.0]), 0.02, 0),
            },
            {"thermal": 0.5, "random": 0.2, "strained": 0.3},
            n_snapshots=40,
        )
        models = {("NaCl", t): model for t in ensemble.temperatures}
        found = []
        for group in snapshot_groups(ensemble, [rock_salt], models):
            snapshots, _ = accepted(group.stream, group.n_snapshots)
            found += [(s.kind, s.parameter) for s in snapshots]
        counts = {key: found.count(key) for key in dict.fromkeys(found)}
        assert counts == {
            ("phonon", 100.0): 10,
            ("phonon", 300.0): 10,
            ("random", 0.1): 8,
            ("strained", 200.0): 12,
        }
        assert ensemble.temperatures == [100.0, 200.0, 300.0]

    def test_small_fraction(self):
        """At least one snapshot a parameter."""
        ensemble = MixtureEnsemble(
            {"a": phonon([100, 200, 300]), "b": random()}, {"a": 0.01, "b": 0.99}, n_snapshots=100
        )
        assert [m.n_snapshots for m in ensemble.members] == [1, 99]

    def test_numbers_are_in_the_settings(self):
        """Another mixture of the same ensembles is another database."""

        def settings(**fractions):
            ensembles = {
                "plain": phonon(),
                "strained": StrainedEnsemble(phonon(seed=2), 0.02, 0),
                "more": StrainedEnsemble(phonon(seed=3), 0.02, 0),
            }
            return MixtureEnsemble(ensembles, fractions, 100).settings

        one = settings(plain=0.2, strained=0.5, more=0.3)
        assert one == settings(plain=0.2, strained=0.5, more=0.3)
        assert one != settings(plain=0.2, strained=0.3, more=0.5)
        assert one["ensembles"]["strained"]["base"]["n_snapshots"] == 50

    def test_members_draw_what_they_draw_alone(self, rock_salt, model):
        ensemble = MixtureEnsemble(
            {"a": phonon(), "b": random()}, {"a": 0.5, "b": 0.5}, n_snapshots=6
        )
        models = {("NaCl", 300.0): model}
        groups = snapshot_groups(ensemble, [rock_salt], models)
        for group, (alone, source) in zip(
            groups, ((phonon(), model), (random(), model.ideal)), strict=True
        ):
            snapshots, _ = accepted(group.stream, 3)
            for one, other in zip(snapshots, first(alone, rock_salt, source, 3), strict=True):
                np.testing.assert_array_equal(one.atoms.positions, other.atoms.positions)

    def test_ensemble_that_ends(self, rock_salt, model):
        """Three modes asked for more than three snapshots give three."""
        modes = ModeEnsemble([1.0], 300, [0, 1, 2])
        ensemble = MixtureEnsemble(
            {"modes": modes, "random": random()}, {"modes": 0.5, "random": 0.5}, n_snapshots=20
        )
        group = next(snapshot_groups(ensemble, [rock_salt], {("NaCl", 300.0): model}))
        assert group.n_snapshots == 10
        assert len(accepted(group.stream, group.n_snapshots)[0]) == 3

    @pytest.mark.parametrize(
        ("fractions", "named"),
        [
            ({"a": 1.0}, r"names \['a'\].*\['a', 'b'\]"),
            ({"a": 0.5, "b": 0.4}, "expected positive ones of sum 1"),
            ({"a": 1.0, "b": 0.0}, "expected positive"),
            ({"a": 1.5, "b": -0.5}, "expected positive"),
        ],
    )
    def test_errors(self, fractions, named):
        with pytest.raises(ValueError, match=named):
            MixtureEnsemble({"a": phonon(), "b": random()}, fractions, 10)


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


class TestFile:
    @pytest.mark.parametrize(
        "change", [lambda atoms, rng: atoms, wrapped, drifted, unwrapped, without_cell]
    )
    def test_round_trip(self, tmp_path, al_crystal, written, change):
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
    def test_strained_cell(self, tmp_path, al_crystal, written, change):
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

    def test_what_a_snapshot_says(self, tmp_path, al_crystal, written):
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
        assert ensemble.temperatures == []
        assert ensemble.temperature(450.0) is None
        assert (ensemble.parameters, ensemble.n_snapshots) == ([450.0], 5)

    def test_every_and_skip(self, tmp_path, al_crystal, written):
        ase.io.write(tmp_path / "md.xyz", [s.atoms for s in written], format="extxyz")
        ensemble = FileEnsemble(str(tmp_path / "md.xyz"), 5, 450, every=3, skip=4)
        snapshots = first(ensemble, al_crystal, al_crystal.supercell, 20)
        for snapshot, before in zip(snapshots, written[4::3], strict=True):
            np.testing.assert_allclose(snapshot.atoms.positions, before.atoms.positions, atol=2e-6)

    def test_paths(self, tmp_path, al_crystal, written):
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

    def write(self, tmp_path, *frames) -> FileEnsemble:
        ase.io.write(tmp_path / "md.xyz", frames, format="extxyz")
        return FileEnsemble(str(tmp_path / "md.xyz"), 1, 300)

    def test_number_of_atoms(self, tmp_path, al_crystal, written):
        ensemble = self.write(tmp_path, written[0].atoms[:-1])
        with pytest.raises(ValueError, match=r"frame 0 of .*md.xyz has 17 atoms; .* has 18"):
            first(ensemble, al_crystal, al_crystal.supercell, 1)

    def test_order_of_species(self, tmp_path, al_crystal, written):
        order = [0, 9, *range(1, 9), *range(10, 18)]
        ensemble = self.write(tmp_path, written[0].atoms, written[1].atoms[order])
        with pytest.raises(ValueError, match=r"frame 1 of .* has Cu as atom 1; .* has Al there"):
            first(ensemble, al_crystal, al_crystal.supercell, 2)

    def test_order_of_atoms(self, tmp_path, al_crystal, written):
        """Two of one species have changed places."""
        atoms = written[0].atoms.copy()
        atoms.positions[[2, 7]] = atoms.positions[[7, 2]]
        ensemble = self.write(tmp_path, atoms)
        with pytest.raises(ValueError, match=r"atom 2 \(Al\) is .* Ang from its site"):
            first(ensemble, al_crystal, al_crystal.supercell, 1)

    def test_diffusion(self, tmp_path):
        """Beyond the neighbours' distance, 2.86 Ang; a displacement of 0.9 Ang is no hop."""
        crystal = Crystal("Al", bulk("Al", "fcc", a=4.05, cubic=True), supercell_matrix([2, 2, 2]))
        atoms = crystal.supercell
        atoms.positions[5, 1] += 0.9
        assert len(first(self.write(tmp_path, atoms), crystal, crystal.supercell, 2)) == 1
        for step in (3.1, 4.05):
            atoms.positions[5, 1] = crystal.supercell.positions[5, 1] + step
            with pytest.raises(ValueError, match=r"atom 5 \(Al\) is .* they diffuse"):
                first(self.write(tmp_path, atoms), crystal, crystal.supercell, 1)

    def test_other_cell(self, tmp_path, al_crystal, written):
        atoms = written[0].atoms.copy()
        atoms.set_cell(atoms.cell.array * [1.3, 1, 1], scale_atoms=True)
        ensemble = self.write(tmp_path, atoms)
        with pytest.raises(ValueError, match=r"strained by 0.30 .* expected at most 0.2"):
            first(ensemble, al_crystal, al_crystal.supercell, 1)

    def test_no_file(self, tmp_path, al_crystal):
        ensemble = FileEnsemble("{name}.xyz", 1, 300, work_dir=str(tmp_path))
        with pytest.raises(
            ValueError, match=r"no trajectory at .*AlCu.xyz: set data.ensemble.path"
        ):
            first(ensemble, al_crystal, al_crystal.supercell, 1)

    @pytest.mark.parametrize(
        "wrong", [{"n_snapshots": 0}, {"every": 0}, {"skip": -1}, {"frames_per_parent": 0}]
    )
    def test_option_errors(self, wrong):
        with pytest.raises(ValueError, match="must be >= 1 and skip"):
            FileEnsemble(**({"path": "md.xyz", "n_snapshots": 1, "temperature": 300} | wrong))
