"""Vibrations at finite temperature: the harmonic crystal that fits the anharmonic one best.

Self-consistent harmonic approximation at fixed mean positions: displacements are drawn from a
harmonic model at T, the code gives their forces, and the force constants that fit those forces
best, in the least-squares sense over that very distribution, are the next model. At the fixed point
the Gibbs-Bogoliubov free energy is stationary.

Plain iteration diverges where the harmonic crystal is unstable. Here the update is multiplicative,
so the dynamical matrix stays positive, and its step is bounded. Forces of earlier steps are not
thrown away: each enters the fit with the ratio of its probability now to that with which the whole
pool was drawn (``force_pool``), and the effective number of samples tells how much they are
worth.

References:
    Hooton, Phil. Mag. 46, 422 (1955); Errea, Calandra, Mauri, Phys. Rev. B 89, 064302 (2014)
    (reweighting: eq. 46).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms

from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import LabellingError, MissingLabelsError
from schnetpack_phonon.common.seeding import snapshot_stream
from schnetpack_phonon.phonons.force_constants import (
    LabelFunction,
    Models,
    PhononSource,
    mixed_force_constants,
    unmixed,
)
from schnetpack_phonon.phonons.force_pool import ForcePool
from schnetpack_phonon.phonons.harmonic import (
    THZ_PER_SQRT_FC,
    HarmonicModel,
    Renormalization,
    displaced_positions,
    free_energy,
    harmonic_model,
    normal_modes,
    to_blocks,
    to_matrix,
)
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal

log = logging.getLogger(__name__)


_POSITIVE = Instabilities("error", 1e-3)


_UNIT = THZ_PER_SQRT_FC**2


class NotConvergedError(LabellingError):
    """The model still moved when the steps were used up."""


@dataclass(frozen=True)
class Step:
    """One step of the self-consistency.

    Attributes:
        n_forces: structures calculated so far.
        effective_samples: (sum w)^2 / sum w^2 of the weights in the fit.
        deviation: rms over modes of the fitted minus the sampled frequency, in THz.
        lowest: lowest fitted frequency in THz, negative where imaginary.
        free_energy: variational free energy minus the static energy, in eV per atom.
        r2: share of the forces' variance that the fitted harmonic model explains.
    """

    n_forces: int
    effective_samples: float
    deviation: float
    lowest: float
    free_energy: float
    r2: float


class Renormalised:
    """Harmonic models renormalised at each temperature.

    Args:
        source: of the harmonic force constants that the iteration starts from.
        n_samples: structures per step.
        tolerance: largest rms over modes of (fitted - sampled) frequency at convergence, in THz.
        max_steps: the iteration is given up after them.
        statistics: ``quantum`` or ``classical``.
        seed: of the displacements.
        start_floor: the first model has the absolute harmonic frequencies, at least this, in THz.
    """

    def __init__(
        self,
        source: PhononSource,
        n_samples: int = 32,
        tolerance: float = 0.1,
        max_steps: int = 40,
        statistics: str = "quantum",
        seed: int = 2511,
        start_floor: float = 1.5,
    ):
        if n_samples < 2:
            raise ValueError(f"data.phonons.n_samples is {n_samples}; expected >= 2")
        if not tolerance > 0:
            raise ValueError(f"data.phonons.tolerance is {tolerance} THz; expected > 0")
        if max_steps < 1:
            raise ValueError(f"data.phonons.max_steps is {max_steps}; expected >= 1")
        if statistics not in ("quantum", "classical"):
            raise ValueError(
                f"data.phonons.statistics is {statistics!r}; there are quantum, classical"
            )
        self.source = source
        self.n_samples = n_samples
        self.tolerance = float(tolerance)
        self.max_steps = max_steps
        self.statistics = statistics
        self.seed = seed
        self.start = Instabilities("floor", start_floor)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "source": "renormalised",
            "start": self.source.settings,
            "start_floor": float(self.start.floor),
            "n_samples": self.n_samples,
            "tolerance": self.tolerance,
            "max_steps": self.max_steps,
            "statistics": self.statistics,
            "seed": self.seed,
        }

    def models(
        self, crystals: Sequence[Crystal], temperatures: Sequence[float], label: LabelFunction
    ) -> Models:
        if self.statistics == "classical" and min(temperatures) == 0:
            raise ValueError(
                "a classical crystal does not move at 0 K, so there is nothing to fit: set "
                "data.phonons.statistics=quantum"
            )
        pure = unmixed(crystals)
        harmonic = self.source.models(pure, temperatures, label)
        found: Models = {}
        missing: MissingLabelsError | None = None
        for temperature in temperatures:
            for crystal in pure:
                start = harmonic[crystal.name, temperature]
                try:
                    found[crystal.name, temperature] = self._converge(
                        crystal, start, temperature, label
                    )
                except MissingLabelsError as error:  # the next labels of all are asked for at once
                    missing = error
        if missing:
            raise missing
        models: Models = {}
        for crystal in crystals:
            for temperature in temperatures:
                known = {c.name: found[c.name, temperature].force_constants for c in pure}
                model = found.get((crystal.name, temperature)) or harmonic_model(
                    crystal.supercell, mixed_force_constants(crystal, known), _POSITIVE
                )
                models[crystal.name, temperature] = replace(model, policy=_policy(temperature))
        return models

    def _converge(
        self, crystal: Crystal, harmonic: HarmonicModel, temperature: float, label: LabelFunction
    ) -> HarmonicModel:
        model = harmonic_model(harmonic.ideal, harmonic.force_constants, self.start)
        what = f"{crystal.name} at {temperature:g} K"
        (ideal,) = label(f"{what}, static", [(f"{crystal.name}, ideal", model.ideal)])
        if ideal is None:
            raise NotConvergedError(f"{what}: the calculation of the ideal crystal failed")
        pool = ForcePool(temperature, self.statistics)
        steps: list[Step] = []
        for number in range(self.max_steps):
            drawn = self._draw(crystal.name, model, temperature, number)
            jobs = [(f"{what}, step {number}, sample {k}", a) for k, a in enumerate(drawn)]
            labels = label(f"renormalisation of {what}, step {number + 1}", jobs)
            found = [
                (atoms, known[properties.forces], known[properties.energy].item())
                for atoms, known in zip(drawn, labels, strict=True)
                if known is not None
            ]
            if not found:
                raise NotConvergedError(
                    f"{what}, step {number + 1}: all {len(drawn)} calculations failed"
                )
            pool.add(model, found)
            weights = pool.weights(model)
            fitted = _fit(crystal, pool, weights)
            steps.append(_step(model, fitted, pool, weights, ideal[properties.energy].item()))
            log.info("%s, step %d: %s", what, number + 1, _in_words(steps[-1]))
            if steps[-1].deviation < self.tolerance and steps[-1].lowest > 0:
                return _renormalised(model, harmonic, temperature, steps, pool)
            model = _update(model, fitted, number)
        last = steps[-1]
        reason = (
            f"rms(fitted - sampled) is {last.deviation:.3f} THz, more than the tolerance of "
            f"{self.tolerance:g} THz"
            if last.lowest > 0
            else f"the fit still has an imaginary mode ({last.lowest:.2f} THz)"
        )
        raise NotConvergedError(
            f"{what}: after {self.max_steps} steps {reason}: raise data.phonons.max_steps "
            "(finished forces are not calculated again), n_samples or tolerance"
        )

    def _draw(
        self, name: str, model: HarmonicModel, temperature: float, number: int
    ) -> list[Atoms]:
        matrix = model.displacement_matrix(temperature, self.statistics)
        group = f"{name}/renormalisation/{float(temperature)!r}"
        first = number * self.n_samples
        streams = [snapshot_stream(self.seed, group, first + k) for k in range(self.n_samples)]
        normals = np.array([stream.standard_normal(len(matrix)) for stream in streams])
        u = (normals @ matrix.T).reshape(self.n_samples, -1, 3)
        drawn = []
        for positions in displaced_positions(model.ideal, u):
            atoms = model.ideal.copy()
            atoms.positions = positions
            drawn.append(atoms)
        return drawn


def _fit(crystal: Crystal, pool: ForcePool, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares over the pool, all symmetries kept; shape=(n_atoms, n_atoms, 3, 3)."""
    # F = -Phi u is linear: the square root of a weight on both sides is a weight in the fit.
    root = np.sqrt(weights * len(weights))[:, None, None]
    phonon = crystal.phonopy()
    phonon.dataset = {"displacements": pool.displacements * root, "forces": pool.forces * root}
    phonon.produce_force_constants(fc_calculator="symfc", show_drift=False)
    return np.array(phonon.force_constants)


def _step(
    model: HarmonicModel, fitted: np.ndarray, pool: ForcePool, weights: np.ndarray, static: float
) -> Step:
    n_atoms = len(model.ideal)
    u = pool.displacements.reshape(len(weights), -1)
    forces = pool.forces.reshape(len(weights), -1)
    residual = forces + u @ to_matrix(fitted)
    sampled = to_matrix(model.sampled_force_constants)
    potential = pool.energies - static - 0.5 * ((u @ sampled) * u).sum(axis=1)
    change = model.mode_frequencies(fitted) - model.sampled_frequencies
    return Step(
        n_forces=len(weights),
        effective_samples=float(1 / (weights**2).sum()),
        deviation=float(np.sqrt(np.mean(change**2))),
        lowest=float(normal_modes(model.ideal, fitted)[0].min()),
        free_energy=(
            free_energy(model.sampled_frequencies, pool.temperature, pool.statistics)
            + float(weights @ potential)
        )
        / n_atoms,
        r2=float(1 - weights @ (residual**2).sum(axis=1) / (weights @ (forces**2).sum(axis=1))),
    )


def _update(model: HarmonicModel, fitted: np.ndarray, number: int) -> HarmonicModel:
    """D -> D^1/2 h(X) D^1/2 with X = D^-1/2 D_fit D^-1/2: positive whatever the fit is.

    The step shrinks: a mode that softens moves further, meets a steeper wall and comes back
    stiffer, so steps of constant size end in an oscillation.
    """
    step, low, high = (0.5, 0.6, 1.6) if number < 5 else (0.4 / (number / 2 - 1.5), 0.7, 1.4)
    root = np.sqrt(np.repeat(model.ideal.get_masses(), 3))[:, None]
    s = model.sampled_frequencies
    scaled = model.eigenvectors / root / s
    values, vectors = np.linalg.eigh(scaled.T @ to_matrix(fitted) @ scaled)
    # In units of the frequencies squared x = 1 where the fit is what was sampled.
    h = np.clip(1 + step * (values * _UNIT - 1), low, high)
    half = (model.eigenvectors * root * s) @ vectors * np.sqrt(h)
    force_constants = to_blocks(half @ half.T / _UNIT)
    return harmonic_model(model.ideal, force_constants, _POSITIVE)


def _renormalised(
    model: HarmonicModel,
    harmonic: HarmonicModel,
    temperature: float,
    steps: Sequence[Step],
    pool: ForcePool,
) -> HarmonicModel:
    if model.n_changed:  # the start, whose force constants are not what was drawn with
        model = harmonic_model(model.ideal, model.sampled_force_constants, _POSITIVE)
    record = Renormalization(
        harmonic.force_constants,
        tuple(asdict(step) for step in steps),
        model.ideal.positions + pool.displacements,
    )
    return replace(model, policy=_policy(temperature), renormalization=record)


def _policy(temperature: float) -> str:
    return f"renormalised at {temperature:g} K"


def _in_words(step: Step) -> str:
    return (
        f"rms {step.deviation:.3f} THz, lowest {step.lowest:.2f} THz, free energy "
        f"{1e3 * step.free_energy:.2f} meV/atom, {step.n_forces} forces worth "
        f"{step.effective_samples:.0f}, R2 {step.r2:.2f}"
    )
