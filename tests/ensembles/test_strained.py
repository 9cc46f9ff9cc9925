"""Random strain: its distribution, and what is kept of the base's snapshots."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms

from schnetpack_phonon.ensembles.strained import StrainedEnsemble
from schnetpack_phonon.structures.crystals import shortest_distance
from tests.ensembles.ensemble_fixtures import first, phonon, random


def strain_of(snapshot, ideal: Atoms) -> np.ndarray:
    return np.linalg.solve(ideal.cell.array, snapshot.atoms.cell.array) - np.eye(3)


@pytest.mark.parametrize("base", [phonon, random])
def test_strain(rock_salt, model, base):
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
def test_fractions_of_the_cell_are_kept(rock_salt, model, base):
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


def test_longer_stream_begins_with_the_shorter(rock_salt, model):
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


def test_seed(rock_salt, model):
    """Of the strain, apart from that of the displacements."""
    one, other = (
        first(StrainedEnsemble(phonon(), 0.03, s), rock_salt, model, 1)[0] for s in (2, 3)
    )
    assert np.abs(one.atoms.cell.array - other.atoms.cell.array).max() > 1e-3
    np.testing.assert_allclose(
        one.atoms.get_scaled_positions(), other.atoms.get_scaled_positions(), atol=1e-6
    )


def test_each_snapshot_has_its_own_strain(rock_salt, model):
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


def test_strain_that_brings_atoms_too_close(rock_salt, model):
    """The base's limit, a share of the ideal crystal's distance, holds for what is labelled."""
    base = phonon(min_distance=0.9)
    found = first(StrainedEnsemble(base, 0.05, 2), rock_salt, model, 64)
    shortest = shortest_distance(rock_salt.supercell)
    for snapshot, unstrained in zip(found, first(base, rock_salt, model, 64), strict=True):
        assert snapshot is None or shortest_distance(snapshot.atoms) >= 0.9 * shortest
        assert snapshot is None or snapshot.index == unstrained.index
    rejected = [s is None for s in found]
    assert sum(s is None for s in first(base, rock_salt, model, 64)) < sum(rejected) < 64


def test_base_says_what_is_needed():
    ensemble = StrainedEnsemble(phonon([300, 100]), 0.02, 0)
    assert ensemble.parameters == [300.0, 100.0]
    assert ensemble.temperatures == [100.0, 300.0]
    assert ensemble.temperature(300.0) == 300.0
    assert (ensemble.parameter_name, ensemble.parameter_unit) == ("temperature", "K")
    assert StrainedEnsemble(random(), 0.02, 0).temperature(0.2) is None
    assert ensemble.settings["base"] == phonon([300, 100]).settings


@pytest.mark.parametrize("strain", [0.0, -0.01, 0.2, float("nan")])
def test_error(strain):
    with pytest.raises(ValueError, match=r"expected 0 < strain < 0\.2"):
        StrainedEnsemble(phonon(), strain, 0)


def test_number_is_that_of_the_base_unless_given():
    assert StrainedEnsemble(phonon(n_snapshots=7), 0.02, 0).n_snapshots == 7
    assert StrainedEnsemble(phonon(n_snapshots=7), 0.02, 0, n_snapshots=3).n_snapshots == 3
