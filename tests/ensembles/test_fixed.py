"""Single modes and special displacements against closed forms."""

from itertools import islice, pairwise

import numpy as np
import pytest
from ase import Atoms, units

from schnetpack_phonon.ensembles.fixed import ModeEnsemble, SpecialEnsemble
from schnetpack_phonon.ensembles.thermal import MatchedEnsemble, PhononEnsemble
from schnetpack_phonon.phonons.harmonic import harmonic_model
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.ensembles.ensemble_fixtures import (
    OPTIONS,
    ROUNDING,
    STABLE,
    THERMAL,
    hessian,
    mode_energy,
    normal_modes,
)
from tests.phonons.force_constants_fixtures import rebased


class TestMode:
    MODES = (0, 1, 7, 58, 116)

    @pytest.mark.parametrize("statistics", ["classical", "quantum"])
    @pytest.mark.parametrize("amplitude", [-2.0, 0.5, 1.0])
    def test_energy_and_direction(self, ag3sbr, statistics, amplitude):
        """Q^2 of the mean energy, and K u = omega^2 M u about the centre of mass."""
        crystal, model = ag3sbr
        ensemble = ModeEnsemble([amplitude], 300, self.MODES, statistics)
        assert (ensemble.temperatures, ensemble.n_snapshots) == ([300.0], 5)
        quanta, _ = normal_modes(model)
        hbar = units._hbar * units.J * units.s
        masses = np.repeat(model.ideal.get_masses(), 3)
        snapshots = list(ensemble.snapshots(crystal, model, amplitude))
        assert [s.index for s in snapshots] == list(self.MODES)
        for mode, snapshot in zip(self.MODES, snapshots, strict=True):
            u = (snapshot.atoms.positions - snapshot.ideal.positions).ravel()
            energy = u @ hessian(model) @ u / 2
            mean = mode_energy(quanta, statistics, 300.0)[mode]
            assert energy == pytest.approx(amplitude**2 * mean, rel=1e-4)
            by_atom = u.reshape(40, 3)
            about_mass = (by_atom - np.average(by_atom, axis=0, weights=masses[::3])).ravel()
            force = hessian(model) @ about_mass
            inertia = (quanta[mode] / hbar) ** 2 * masses * about_mass
            rounding = 2 * ROUNDING * np.abs(hessian(model)).sum(axis=1).max()
            np.testing.assert_allclose(force, inertia, rtol=0, atol=rounding)
            assert np.abs(force).max() > 100 * rounding

    def test_modes_differ(self, ag3sbr):
        """Mass-weighted displacements are orthogonal, also among modes of one frequency."""
        model = ag3sbr[1]
        ensemble = ModeEnsemble([1.0], 300, range(117))
        found = [s.atoms.positions - s.ideal.positions for s in ensemble.snapshots(*ag3sbr, 1.0)]
        u = np.reshape(found, (117, 120))
        overlap = u @ hessian(model) @ u.T  # the same as mass-weighted, and blind to shifts
        root = np.sqrt(np.diag(overlap))
        np.testing.assert_allclose(overlap / np.outer(root, root), np.eye(117), atol=1e-4)

    def test_sign(self, ag3sbr):
        crystal, model = ag3sbr
        up, down = (
            next(ModeEnsemble([q], 300, [4]).snapshots(crystal, model, q)) for q in (1.5, -1.5)
        )
        np.testing.assert_allclose(
            up.atoms.positions + down.atoms.positions, 2 * model.ideal.positions, atol=2 * ROUNDING
        )
        assert up.parent == down.parent  # a mode seen in training is not tested

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"amplitudes": []}, "amplitudes are"),
            ({"amplitudes": [1, 0]}, "not 0"),
            ({"amplitudes": [1, 1]}, "different"),
            ({"modes": []}, "modes are"),
            ({"modes": [-1]}, "different indices from 0"),
            ({"modes": [2, 2]}, "different"),
            ({"temperature": -1}, "-1 K; expected >= 0"),
            ({"statistics": "bose"}, "expected quantum, classical"),
        ],
    )
    def test_errors(self, wrong, named):
        with pytest.raises(ValueError, match=named):
            ModeEnsemble(**({"amplitudes": [1], "temperature": 300, "modes": [0]} | wrong))

    def test_no_such_mode(self, nacl):
        with pytest.raises(ValueError, match="has 45; NaCl has 45 modes, from 0 to 44"):
            list(ModeEnsemble([1], 300, [45]).snapshots(*nacl, 1.0))

    def test_amplitude_beyond_half_the_shortest_distance(self, ag3sbr):
        crystal, model = ag3sbr
        named = r"mode 0 of Ag3SBr \(.* THz\) with amplitude 90 moves an atom by .* \(1\.20 Ang\)"
        with pytest.raises(ValueError, match=named):
            list(ModeEnsemble([90], 300, [0]).snapshots(crystal, model, 90.0))

    def test_frozen_mode(self, rock_salt, unstable):
        """Its snapshot would be the ideal crystal."""
        model = harmonic_model(rock_salt.supercell, unstable, Instabilities("freeze", 2.0))
        with pytest.raises(ValueError, match=r"mode 0 of NaCl \(-.* THz\) is frozen at 300 K"):
            list(ModeEnsemble([1], 300, [44, 0]).snapshots(rock_salt, model, 1.0))
        assert len(list(ModeEnsemble([1], 300, [44]).snapshots(rock_salt, model, 1.0))) == 1


class TestSpecial:
    @pytest.mark.parametrize(("statistics", "temperature"), THERMAL)
    def test_energy(self, ag3sbr, statistics, temperature):
        """That of the whole ensemble, in one displacement."""
        crystal, model = ag3sbr
        quanta, _ = normal_modes(model)
        expected = mode_energy(quanta, statistics, temperature).sum()
        ensemble = SpecialEnsemble([temperature], statistics)
        for snapshot in ensemble.snapshots(crystal, model, temperature):
            u = (snapshot.atoms.positions - snapshot.ideal.positions).ravel()
            assert u @ hessian(model) @ u / 2 == pytest.approx(expected, rel=1e-5)

    def test_each_mode_has_its_standard_deviation(self, ag3sbr):
        """In each set of g equal frequencies the squared amplitudes add up to g variances."""
        crystal, model = ag3sbr
        quanta, vectors = normal_modes(model)
        snapshot = next(SpecialEnsemble([300.0]).snapshots(crystal, model, 300.0))
        u = (snapshot.atoms.positions - snapshot.ideal.positions).ravel()
        root = np.sqrt(np.repeat(model.ideal.get_masses(), 3))
        hbar = units._hbar * units.J * units.s
        energies = ((root * u) @ vectors * quanta / hbar) ** 2 / 2
        edges = np.flatnonzero(np.diff(quanta, prepend=-1, append=1e9) > 1e-6)
        assert len(edges) > 10
        expected = mode_energy(quanta, "quantum", 300.0)
        for start, stop in pairwise(edges):
            found = energies[start:stop].sum()
            assert found == pytest.approx(expected[start:stop].sum(), rel=1e-3)

    def test_signs_alternate(self, central_springs):
        """Along modes of different frequencies, from the lowest: a chain of unlike springs."""
        ideal = Atoms("Cu4", [(x, 0, 0) for x in (0, 2.0, 4.1, 6.3)], cell=[9, 9, 9], pbc=True)
        force_constants = np.zeros((4, 4, 3, 3))
        stiff = np.diag([5.0, 3.0, 1.0])
        for (i, j), k in {(0, 1): 1.0, (1, 2): 1.31, (2, 3): 1.73, (0, 3): 0.77}.items():
            force_constants[[i, j], [j, i]] -= k * stiff
            force_constants[[i, j], [i, j]] += k * stiff
        model = harmonic_model(ideal, force_constants, STABLE)
        crystal = Crystal("Cu4", ideal, supercell_matrix([1, 1, 1]))
        snapshot = next(SpecialEnsemble([300.0]).snapshots(crystal, model, 300.0))
        u = (snapshot.atoms.positions - ideal.positions).ravel()
        canonical = model.canonical_eigenvectors()
        amplitudes = canonical.T @ (u * np.sqrt(np.repeat(ideal.get_masses(), 3)))
        assert np.diff(model.frequencies).min() > 1e-3
        np.testing.assert_array_equal(np.sign(amplitudes), [1, -1, 1, -1, 1, -1, 1, -1, 1])

    def test_mirror_image(self, ag3sbr):
        crystal, model = ag3sbr
        ensemble = SpecialEnsemble([300.0])
        one, other = ensemble.snapshots(crystal, model, 300.0)
        np.testing.assert_allclose(
            one.atoms.positions + other.atoms.positions,
            2 * model.ideal.positions,
            atol=2 * ROUNDING,
        )
        assert one.parent == other.parent
        assert (one.index, other.index, ensemble.n_snapshots) == (0, 1, 2)
        np.testing.assert_allclose(
            one.atoms.positions.mean(axis=0), model.ideal.positions.mean(axis=0), atol=ROUNDING
        )

    def test_too_hot(self, rock_salt, stable):
        soft = harmonic_model(rock_salt.supercell, stable / 3000, Instabilities("abs"))
        with pytest.raises(ValueError, match="alone moves an atom"):
            next(SpecialEnsemble([600.0]).snapshots(rock_salt, soft, 600.0))

    def test_errors(self):
        with pytest.raises(ValueError, match="temperatures is empty"):
            SpecialEnsemble([])
        with pytest.raises(ValueError, match="expected quantum, classical"):
            SpecialEnsemble([300.0], "bose")


@pytest.mark.parametrize(
    "ensemble",
    [
        PhononEnsemble([300.0], **OPTIONS),
        MatchedEnsemble([300.0], **OPTIONS),
        SpecialEnsemble([300.0]),
        ModeEnsemble([1.0], 300, [0, 5, 40, 116]),
    ],
    ids=lambda ensemble: ensemble.kind,
)
def test_basis_of_equal_modes_changes_nothing(ag3sbr, ensemble):
    """Linear algebra libraries choose it at will; a snapshot must not depend on it."""
    crystal, model = ag3sbr
    found = [
        np.array(
            [
                s.atoms.positions
                for s in islice(ensemble.snapshots(crystal, m, ensemble.parameters[0]), 4)
            ]
        )
        for m in (model, rebased(model))
    ]
    np.testing.assert_allclose(*found, atol=1.1e-6)
