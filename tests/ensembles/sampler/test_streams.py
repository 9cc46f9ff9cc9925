"""Random streams, batches, groups and mirror images: what all random ensembles have in common."""

import os
import subprocess
import sys
import zlib
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.geometry import get_distances
from scipy.stats import qmc

from schnetpack_phonon.common.random import snapshot_stream
from schnetpack_phonon.ensembles.sampler import BATCH, DRAWS
from schnetpack_phonon.ensembles.thermal import MatchedEnsemble
from schnetpack_phonon.phonons.harmonic import harmonic_model
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.ensembles.ensemble_fixtures import (
    ROUNDING,
    first,
    phonon,
    positions,
    random,
)


@pytest.fixture(params=["phonon", "matched", "random"])
def sampler(request, model):
    """(makes an ensemble, what it displaces)"""
    if request.param == "random":
        return random, model.ideal
    if request.param == "phonon":
        return phonon, model

    def matched(**options):
        return MatchedEnsemble(
            [300.0], **({"n_snapshots": 5, "seed": 1, "min_distance": 0.0} | options)
        )

    return matched, model


def test_snapshots_are_drawn_one_by_one(rock_salt, model):
    """Snapshot k needs nothing but its own stream; batches change no bit of it."""
    ours = positions(random([0.3], seed=9), rock_salt, model.ideal, 200)
    for k in (0, 1, 63, 64, 65, 127, 128, 199):
        u = snapshot_stream(9, "NaCl/uniform random/0.3", k).uniform(-0.3, 0.3, 48).reshape(16, 3)
        expected = (model.ideal.positions + (u - u.mean(axis=0))).round(6)
        np.testing.assert_array_equal(ours[k], expected)


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("n", [1, 63, 64, 65, 130])
def test_longer_stream_begins_with_the_shorter(sampler, rock_salt, draws, n):
    make, source = sampler
    many = positions(make(draws=draws), rock_salt, source, 140)
    few = positions(make(draws=draws, n_snapshots=n), rock_salt, source, n)
    np.testing.assert_array_equal(few, many[:n])
    assert len(np.unique(many[:, 0, 0])) == 140


@pytest.mark.parametrize("draws", DRAWS)
def test_batches_are_the_snapshots(sampler, rock_salt, draws):
    make, source = sampler
    ensemble = make(draws=draws, min_distance=0.8)
    parameter = ensemble.parameters[0]
    batches = list(islice(ensemble.batches("NaCl", source, parameter), 3))
    assert [b.first for b in batches] == [0, BATCH, 2 * BATCH]
    assert {b.positions.shape for b in batches} == {(BATCH, 16, 3)}
    stream = ensemble.snapshots(rock_salt, source, parameter)
    for batch in batches:
        for k, snapshot in enumerate(islice(stream, BATCH)):
            assert (snapshot is not None) == batch.accepted[k]
            if snapshot is not None:
                assert snapshot.index == batch.first + k
                np.testing.assert_array_equal(snapshot.atoms.positions, batch.positions[k])


THREADS_SCRIPT = """
import hashlib, sys
import numpy as np
from tests.ensembles.ensemble_fixtures import phonon, positions, random
from tests.ensembles.sampler.test_streams import springs_in_a_large_cell
crystal, model = springs_in_a_large_cell()
ensembles = [(phonon(draws=d), model) for d in ("independent", "sobol", "antithetic")]
for ensemble, source in [*ensembles, (random(), model.ideal)]:
    drawn = positions(ensemble, crystal, source, 100)
    print(hashlib.sha256(np.ascontiguousarray(drawn).tobytes()).hexdigest())
"""


def springs_in_a_large_cell():
    """64 atoms between which linear algebra shares its work out to threads; many equal modes."""
    crystal = Crystal("Al", bulk("Al", "fcc", a=4.05), supercell_matrix([4, 4, 4]))
    ideal = crystal.supercell
    force_constants = np.zeros((64, 64, 3, 3))
    for i in range(64):
        vectors, lengths = get_distances(
            ideal.positions[i], ideal.positions, cell=ideal.cell, pbc=True
        )
        for j in np.flatnonzero(np.abs(lengths[0] - 4.05 / 2**0.5) < 0.01):
            unit = vectors[0, j] / lengths[0, j]
            force_constants[i, j] -= 1.5 * np.outer(unit, unit)
            force_constants[i, i] += 1.5 * np.outer(unit, unit)
    return crystal, harmonic_model(ideal, force_constants, Instabilities("error", 0.1))


def test_threads_change_no_bit():
    """Two processes, linear algebra with one thread and with eight."""
    root = str(Path(__file__).parents[3])
    prints = []
    for threads in ("1", "8"):
        variables = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads
        )
        prints.append(
            subprocess.run(
                [sys.executable, "-c", THREADS_SCRIPT],
                env=os.environ | variables | {"PYTHONHASHSEED": threads},
                cwd=root,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
    assert prints[0] == prints[1]
    assert len(set(prints[0].split())) == 4


@pytest.mark.parametrize("parameter", [300, np.float64(300.0), np.float32(300.0)])
def test_type_of_a_number_changes_nothing(rock_salt, model, parameter):
    ours = first(phonon(), rock_salt, model, 2, parameter)
    for one, other in zip(ours, first(phonon(), rock_salt, model, 2, 300.0), strict=True):
        np.testing.assert_array_equal(one.atoms.positions, other.atoms.positions)
        assert one.parent == other.parent


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"name": "NaCl"}, {"name": "NaBr"}),
        ({"parameter": 0.1}, {"parameter": 0.2}),
        ({"seed": 1}, {"seed": 2}),
    ],
)
def test_groups_share_no_random_numbers(rock_salt, model, one, other):
    """Correlation of 9600 pairs within 5/sqrt(9600), between groups and of shifted snapshots."""
    u, v = (
        positions(
            random([choice.get("parameter", 0.1)], seed=choice.get("seed", 1)),
            replace(rock_salt, name=choice.get("name", "NaCl")),
            model.ideal,
            201,
        )
        - model.ideal.positions
        for choice in (one, other)
    )
    for a, b in ((u[1:], v[1:]), (u[1:], u[:-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(9600)


def test_moved_crystal(sampler, rock_salt):
    """The displacements do not depend on where the origin is."""
    make, source = sampler
    before = getattr(source, "ideal", source)
    ideal = before.copy()
    ideal.positions += [0.4, -0.2, 7.7]
    moved = ideal
    if source is not before:
        moved = harmonic_model(ideal, source.force_constants, Instabilities("error", floor=0.1))
    u, v = (
        positions(make(), rock_salt, s, 20) - atoms.positions
        for s, atoms in ((source, before), (moved, ideal))
    )
    np.testing.assert_allclose(u, v, atol=2.1e-6)


def test_mirror_images(sampler, rock_salt):
    """Antithetic: one of a pair is the independent snapshot of its index, the other its mirror."""
    make, source = sampler
    ideal = getattr(source, "ideal", source).positions
    pairs = first(make(draws="antithetic"), rock_salt, source, 130)
    u = np.array([s.atoms.positions - ideal for s in pairs])
    np.testing.assert_allclose(u[::2], -u[1::2], atol=2 * ROUNDING)
    independent = positions(make(), rock_salt, source, 130) - ideal
    np.testing.assert_allclose(u[::2], independent[::2], atol=2 * ROUNDING)
    parents = [s.parent for s in pairs]
    assert parents[::2] == parents[1::2]
    assert len(set(parents)) == 65
    assert set(parents) <= {s.parent for s in first(make(), rock_salt, source, 130)}


def test_sobol_points_are_those_of_scipy(rock_salt, model):
    """One scrambled sequence, drawn at once, whatever the batches."""
    ours = positions(random([0.3], seed=9, draws="sobol"), rock_salt, model.ideal, 256)
    sequence = np.random.SeedSequence(9, spawn_key=(zlib.crc32(b"NaCl/uniform random/0.3"),))
    engine = qmc.Sobol(48, rng=np.random.default_rng(int(sequence.generate_state(1)[0])))
    u = (0.6 * engine.random(256) - 0.3).reshape(256, 16, 3)
    expected = model.ideal.positions + u - u.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=ROUNDING)


def test_sobol_groups_are_scrambled_apart(rock_salt, model):
    """Or two groups would have one set of points.

    Of 48 dimensions each correlates by up to 1, with a random sign: 1 / sqrt(48) at most.
    """
    u, v, w = (
        positions(random([a], seed=s, draws="sobol"), rock_salt, model.ideal, 64).ravel()
        for a, s in ((0.2, 1), (0.2, 2), (0.21, 1))
    )
    ideal = np.tile(model.ideal.positions.ravel(), 64)
    for a, b in ((u, v), (u, w)):
        assert abs(np.corrcoef(a - ideal, b - ideal)[0, 1]) < 5 / np.sqrt(48)
