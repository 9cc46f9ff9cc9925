"""Renormalised phonons: the effective force constants of an anharmonic crystal at a temperature.

Self-consistent harmonic approximation at fixed mean positions. Displacements are drawn from a
harmonic model at T, the code computes their forces, and the force constants that fit these forces
best (least squares over that distribution) give the next model. At the fixed point the
Gibbs-Bogoliubov free energy is stationary.

Plain iteration diverges if the harmonic crystal is unstable. Here the update is multiplicative, so
the dynamical matrix stays positive, and its step is bounded. Forces of earlier steps are used
again: each has in the fit the weight of its present probability relative to that with which the
whole pool was drawn (``force_pool``). The effective sample size follows from the weights.

References:
    Hooton, Phil. Mag. 46, 422 (1955); Errea, Calandra, Mauri, Phys. Rev. B 89, 064302 (2014)
    (reweighting: eq. 46).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from ase import Atoms

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import (
    LabellingError,
    MissingLabelsError,
    check_at_least,
    check_choice,
    check_positive,
)
from schnetpack_phonon.common.random import snapshot_stream
from schnetpack_phonon.phonons.checks import check_fit
from schnetpack_phonon.phonons.force_constants import (
    LabelFunction,
    Models,
    PhononSource,
    mixed_force_constants,
    unmixed,
    with_masses_of,
)
from schnetpack_phonon.phonons.force_pool import ForcePool
from schnetpack_phonon.phonons.harmonic import (
    STATISTICS,
    THZ_PER_SQRT_FC,
    HarmonicModel,
    Renormalization,
    free_energy,
    harmonic_model,
    normal_modes,
    to_blocks,
    to_matrix,
)
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal, displaced_positions

log = logging.getLogger(__name__)

_POSITIVE = Instabilities("error")
_UNIT = THZ_PER_SQRT_FC**2


class NotConvergedError(LabellingError):
    """The model has not converged within the maximum number of steps."""


@dataclass(frozen=True)
class Step:
    """One step of the self-consistency.

    Attributes:
        n_forces: structures calculated so far.
        effective_samples: effective sample size (sum w)^2 / sum w^2 of the weights in the fit.
        deviation: rms over modes of the fitted minus the sampled frequency, in THz.
        lowest: lowest fitted frequency in THz, negative if imaginary.
        free_energy: variational free energy minus the static energy, in eV per atom.
        r2: fraction of the forces' variance that the fitted harmonic model explains.
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
        source: of the harmonic force constants from which the iteration starts.
        n_samples: structures per step.
        tolerance: largest rms over modes of (fitted - sampled) frequency at convergence, in THz.
        max_steps: maximum number of steps.
        statistics: ``quantum`` or ``classical``.
        seed: of the displacements.
        start_floor: the first model has the absolute harmonic frequencies, at least this, in THz.
        calculator: of all forces; by default that of the source, or of the labels.
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
        calculator: LabellingCalculator | None = None,
    ):
        check_at_least(2, n_samples=n_samples)
        check_at_least(1, max_steps=max_steps)
        check_positive("THz", tolerance=tolerance)
        check_choice(STATISTICS, statistics=statistics)
        self.source, self.calculator = source, calculator or source.calculator
        self.n_samples = n_samples
        self.tolerance = float(tolerance)
        self.max_steps = max_steps
        self.statistics = statistics
        self.seed = seed
        self.start = Instabilities("floor", start_floor, min_frequency=start_floor)

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

    def check(self, crystals: Sequence[Crystal], relax: bool) -> None:
        self.source.check(crystals, relax)

    def models(
        self, crystals: Sequence[Crystal], temperatures: Sequence[float], label: LabelFunction
    ) -> Models:
        if self.statistics == "classical" and min(temperatures) == 0:
            raise ValueError("classical crystals rest at 0 K: set data.phonons.statistics=quantum")
        pure = unmixed(crystals)
        harmonic = self.source.models(pure, temperatures, label)
        crystals = with_masses_of(crystals, harmonic)
        found: Models = {}
        missing: MissingLabelsError | None = None
        for t, crystal in product(temperatures, pure):
            try:
                found[crystal.name, t] = self._converge(crystal, t, harmonic, label)
            except MissingLabelsError as error:  # report the next labels of all crystals at once
                missing = error
        if missing:
            raise missing
        models: Models = {}
        for crystal, t in product(crystals, temperatures):
            known = {c.name: found[c.name, t].force_constants for c in pure}
            model = found.get((crystal.name, t)) or harmonic_model(
                crystal.supercell, mixed_force_constants(crystal, known), _POSITIVE
            )
            models[crystal.name, t] = replace(model, policy=f"renormalised at {t:g} K")
        return models

    def _converge(
        self, crystal: Crystal, temperature: float, harmonic: Models, label: LabelFunction
    ) -> HarmonicModel:
        start = harmonic[crystal.name, temperature]
        model = harmonic_model(start.ideal, start.force_constants, self.start)
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
                return _renormalised(model, start, steps, pool)
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
        drawn = [model.ideal.copy() for _ in streams]
        for atoms, positions in zip(drawn, displaced_positions(model.ideal, u), strict=True):
            atoms.positions = positions
        return drawn


def _fit(crystal: Crystal, pool: ForcePool, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares over the pool with all symmetries; shape=(n_atoms, n_atoms, 3, 3)."""
    phonon = crystal.phonopy()
    if pool.n_draws == 1:  # later there are more
        phonon.dataset = {"displacements": pool.displacements, "forces": pool.forces}
        check_fit(phonon, f"{crystal.name}, first step (see data.phonons.n_samples)")
    # F = -Phi u is linear: the square root of a weight on both sides gives the weight in the fit.
    root = np.sqrt(weights * len(weights))[:, None, None]
    phonon.dataset = {"displacements": pool.displacements * root, "forces": pool.forces * root}
    phonon.produce_force_constants(fc_calculator="symfc", show_drift=False)
    return np.array(phonon.force_constants)


def _step(
    model: HarmonicModel, fitted: np.ndarray, pool: ForcePool, weights: np.ndarray, static: float
) -> Step:
    u = pool.displacements.reshape(len(weights), -1)
    forces = pool.forces.reshape(len(weights), -1)
    residual = forces + u @ to_matrix(fitted)
    anharmonic = float(weights @ (pool.energies - static - model.energies(pool.displacements)))
    harmonic = free_energy(model.sampled_frequencies, pool.temperature, pool.statistics)
    change = model.mode_frequencies(fitted) - model.sampled_frequencies
    return Step(
        n_forces=len(weights),
        effective_samples=float(1 / (weights**2).sum()),
        deviation=float(np.sqrt(np.mean(change**2))),
        lowest=float(normal_modes(model.ideal, fitted)[0].min()),
        free_energy=(harmonic + anharmonic) / len(model.ideal),
        r2=float(1 - weights @ (residual**2).sum(axis=1) / (weights @ (forces**2).sum(axis=1))),
    )


def _update(model: HarmonicModel, fitted: np.ndarray, number: int) -> HarmonicModel:
    """D -> D^1/2 h(X) D^1/2 with X = D^-1/2 D_fit D^-1/2: positive for every fit.

    The step shrinks, since steps of constant size end in an oscillation: a softer mode has larger
    displacements, which reach a steeper potential and make it stiffer in the next step.
    """
    step, low, high = (0.5, 0.6, 1.6) if number < 5 else (0.4 / (number / 2 - 1.5), 0.7, 1.4)
    root = model.root_masses[:, None]
    s = model.sampled_frequencies
    scaled = model.eigenvectors / root / s
    values, vectors = np.linalg.eigh(scaled.T @ to_matrix(fitted) @ scaled)
    # In units of the frequencies squared, x = 1 where the fit equals the sampled model.
    h = np.clip(1 + step * (values * _UNIT - 1), low, high)
    half = (model.eigenvectors * root * s) @ vectors * np.sqrt(h)
    force_constants = to_blocks(half @ half.T / _UNIT)
    return harmonic_model(model.ideal, force_constants, _POSITIVE)


def _renormalised(
    model: HarmonicModel, start: HarmonicModel, steps: Sequence[Step], pool: ForcePool
) -> HarmonicModel:
    if model.n_changed:  # the first model, which was not sampled with its force constants
        model = harmonic_model(model.ideal, model.sampled_force_constants, _POSITIVE)
    record = Renormalization(
        start.force_constants,
        tuple(asdict(step) for step in steps),
        model.ideal.positions + pool.displacements,
    )
    return replace(model, renormalization=record)


def _in_words(step: Step) -> str:
    return (
        f"rms {step.deviation:.3f} THz, lowest {step.lowest:.2f} THz, free energy "
        f"{1e3 * step.free_energy:.2f} meV/atom, {step.n_forces} forces, effective sample size "
        f"{step.effective_samples:.0f}, R2 {step.r2:.2f}"
    )
