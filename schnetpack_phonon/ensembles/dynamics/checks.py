"""What stops a dynamics: its structures must never be labelled as if they were of the crystal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.units import kB

from schnetpack_phonon.common.errors import PhononError
from schnetpack_phonon.ensembles.dynamics.langevin import Langevin, Stretch
from schnetpack_phonon.structures.crystals import shortest_distance

RUNAWAY = 4.0  #: times the temperature of a large crystal, at any time
DRIFT = 0.1  #: of the energy without the heat of the bath: k_B T per atom and ps
DEVIATION = 0.05  #: of the mean temperature, beyond four standard errors
LINDEMANN = 0.2  #: rms displacement over the shortest distance, of the element that moves least


class DynamicsError(PhononError, RuntimeError):
    """A dynamics that left the crystal or what its potential can do."""


class EndedError(DynamicsError):
    """The end of one replica.

    Attributes:
        replica: its number.
    """

    def __init__(self, message: str, replica: int):
        super().__init__(message)
        self.replica = replica


def check_stretch(
    what: str,
    ideal: Atoms,
    dynamics: Langevin,
    stretch: Stretch,
    min_distance: float,
    settled: bool = True,
) -> None:
    """Raises DynamicsError if temperature, energy or distances are not those of a crystal.

    Args:
        what: crystal and temperature, for the message.
        ideal: the supercell at rest.
        dynamics: its options.
        stretch: to check.
        min_distance: as a fraction of the shortest distance in ``ideal``.
        settled: False while the crystal may give off heat: an ideal one can be unstable.
    """
    target, temperatures = dynamics.temperature, stretch.temperatures
    hottest = np.nanmax(temperatures) if np.isfinite(temperatures).any() else np.inf
    # Of few atoms the kinetic energy fluctuates more.
    limit = target * (RUNAWAY + 30 / (3 * len(ideal) - 3)) if settled else np.inf
    if not np.isfinite(stretch.potential).all() or hottest > limit:
        raise DynamicsError(
            f"{what}: the temperature runs away to {hottest:.3g} K: lower data.ensemble.time_step "
            f"({dynamics.time_step:g} fs), or use another potential "
            "(data/calculator@data.ensemble.calculator)"
        )
    limit = min_distance * shortest_distance(ideal)
    if (nearest := stretch.distances.min()) < limit:
        raise DynamicsError(
            f"{what}: two atoms come within {nearest:.2f} Ang; expected at least {limit:.2f} Ang "
            f"({min_distance:g} of the ideal crystal, data.ensemble.min_distance). The potential "
            "does not hold this crystal together at this temperature: use another one, or lower "
            "data.ensemble.temperatures"
        )
    if len(stretch.conserved) > 2:
        times = dynamics.record_time * np.arange(len(stretch.conserved))
        drift = np.polyfit(times, stretch.conserved, 1)[0] / len(ideal)
        if abs(drift) > DRIFT * kB * target:
            raise DynamicsError(
                f"{what}: the energy drifts by {1e3 * drift:.2g} meV per atom and ps without the "
                f"bath; expected less than {1e3 * DRIFT * kB * target:.2g}: lower "
                f"data.ensemble.time_step ({dynamics.time_step:g} fs)"
            )


def check_equilibrium(
    what: str, ideal: Atoms, dynamics: Langevin, stretches: Sequence[Stretch]
) -> None:
    """Raises DynamicsError for a crystal that has melted, or a wrong mean temperature.

    Args:
        what: crystal and temperature, for the message.
        ideal: the supercell at rest.
        dynamics: its options.
        stretches: of equilibrium.
    """
    ratios = lindemann(ideal, np.concatenate([stretch.positions for stretch in stretches]))
    if min(ratios.values()) > LINDEMANN:
        found = ", ".join(f"{element} {ratio:.2f}" for element, ratio in ratios.items())
        raise DynamicsError(
            f"{what}: the crystal melts: all elements move by more than {LINDEMANN:g} of the "
            f"shortest distance (rms, Lindemann's ratio; {found}). Lower "
            "data.ensemble.temperatures, or use another potential"
        )
    temperatures = np.concatenate([stretch.temperatures for stretch in stretches])
    n_free = 3 * len(ideal) - 3
    # The kinetic energy forgets at twice the rate of the velocities.
    n_independent = 1 + 2 * dynamics.friction * dynamics.record_time * len(temperatures)
    error = dynamics.temperature * np.sqrt(2 / n_free / n_independent)
    mean = temperatures.mean()
    if abs(mean - dynamics.temperature) > DEVIATION * dynamics.temperature + 4 * error:
        raise DynamicsError(
            f"{what}: the mean temperature is {mean:.0f} K; expected {dynamics.temperature:g} +- "
            f"{error:.0f} K. Too low: the time step is too large (data.ensemble.time_step is "
            f"{dynamics.time_step:g} fs). Too high: the potential still gives off heat "
            "(raise data.ensemble.equilibration), or its forces are no gradient"
        )


def lindemann(ideal: Atoms, positions: np.ndarray) -> dict[str, float]:
    """Rms displacement of each element from its first sites over the shortest distance.

    Each element is taken in its own frame, from which those that diffuse push it away.

    Args:
        ideal: the supercell at rest.
        positions: in Ang, not wrapped, shape=(n, n_atoms, 3).
    """
    symbols, distance = np.array(ideal.get_chemical_symbols()), shortest_distance(ideal)
    found = {}
    for element in dict.fromkeys(symbols.tolist()):
        u = (positions - ideal.positions)[:, symbols == element]
        if u.shape[1] > 1:
            u = u - u.mean(axis=1, keepdims=True)
        found[element] = float(np.sqrt((u**2).sum(axis=2).mean()) / distance)
    return found
