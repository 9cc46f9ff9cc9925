"""Langevin dynamics at constant cell and temperature, one stretch after the other.

The integrator is BAOAB: of a harmonic crystal it samples the classical positions exactly, whatever
the time step. The heat that the bath gives is counted, so that the energy without it must be
constant: its drift is an error of the time step or of the forces.

References:
    Leimkuhler, Matthews, Appl. Math. Res. eXpress 2013, 34 (BAOAB);
    Bussi, Parrinello, Phys. Rev. E 75, 056707 (2007) (energy without the heat of the bath).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.geometry import find_mic
from ase.units import fs, kB

from schnetpack_phonon.common.errors import check_positive

_RECORD = 20.0  # fs between records, about
_STRETCH = 0.5  # ps, about
_MOST_PAIRS = 20_000  # of atoms, in one call
_RUNAWAY = 20.0  # times the temperature at which a stretch ends before the forces fail


@dataclass(frozen=True)
class Langevin:
    """Options of the dynamics of one crystal at one temperature.

    Attributes:
        temperature: in K.
        time_step: in fs.
        friction: rate at which velocities are forgotten, in 1/ps.
    """

    temperature: float
    time_step: float
    friction: float

    def __post_init__(self) -> None:
        check_positive("K", temperature=self.temperature)
        check_positive("fs", time_step=self.time_step)
        check_positive("1/ps", friction=self.friction)

    @property
    def every(self) -> int:
        """Steps between records."""
        return max(round(_RECORD / self.time_step), 1)

    @property
    def n_records(self) -> int:
        """Records of a stretch."""
        return max(round(1e3 * _STRETCH / (self.every * self.time_step)), 1)

    @property
    def record_time(self) -> float:
        """Time between records, in ps."""
        return self.every * self.time_step / 1e3

    @property
    def stretch_time(self) -> float:
        """Length of a stretch, in ps."""
        return self.n_records * self.record_time


@dataclass(frozen=True)
class State:
    """Where a stretch starts.

    Attributes:
        positions: not wrapped into the cell, in Ang, shape=(n_atoms, 3).
        velocities: in ASE's unit, Ang sqrt(eV/amu)/Ang, shape=(n_atoms, 3).
        heat: that the bath has given so far, in eV.
    """

    positions: np.ndarray
    velocities: np.ndarray
    heat: float


@dataclass(frozen=True)
class Stretch:
    """Records of a part of a trajectory, the last of its end.

    Attributes:
        positions: in Ang, shape=(n_records, n_atoms, 3).
        velocities: in ASE's unit, shape=(n_records, n_atoms, 3).
        potential: energy in eV, shape=(n_records,).
        kinetic: energy in eV, shape=(n_records,).
        heat: that the bath has given since the start of the trajectory, in eV, shape=(n_records,).
        distances: the shortest between two atoms, in Ang, shape=(n_records,).
    """

    positions: np.ndarray
    velocities: np.ndarray
    potential: np.ndarray
    kinetic: np.ndarray
    heat: np.ndarray
    distances: np.ndarray

    @property
    def end(self) -> State:
        """From which the next stretch starts."""
        return State(self.positions[-1], self.velocities[-1], float(self.heat[-1]))

    @property
    def temperatures(self) -> np.ndarray:
        """Of the kinetic energy without that of the centre of mass, in K, shape=(n_records,)."""
        return 2 * self.kinetic / ((3 * self.positions.shape[1] - 3) * kB)

    @property
    def conserved(self) -> np.ndarray:
        """Energy without the heat of the bath, in eV, shape=(n_records,)."""
        return self.potential + self.kinetic - self.heat


def initial_state(ideal: Atoms, temperature: float, stream: np.random.Generator) -> State:
    """Atoms on their sites with Maxwell's velocities, without a motion of the centre of mass."""
    masses = ideal.get_masses()[:, None]
    velocities = np.sqrt(kB * temperature / masses) * stream.standard_normal((len(ideal), 3))
    return State(ideal.positions, _at_rest(velocities, masses), 0.0)


def advance(
    ideal: Atoms,
    calculator: Calculator,
    dynamics: Langevin,
    state: State,
    stream: np.random.Generator,
) -> Stretch:
    """The next stretch; ends early when a number is not finite or the temperature runs away.

    Args:
        ideal: species, masses and cell.
        calculator: of energy and forces.
        dynamics: its options.
        state: at the start.
        stream: the random numbers of this stretch.
    """
    atoms, masses = ideal.copy(), ideal.get_masses()[:, None]
    atoms.positions, atoms.calc = state.positions, calculator
    dt, thermal = dynamics.time_step * fs, kB * dynamics.temperature
    decay = np.exp(-dynamics.friction * dynamics.time_step / 1e3)
    kick = np.sqrt(thermal * (1 - decay**2) / masses)
    hot = _RUNAWAY * 1.5 * thermal * len(atoms)
    velocities, heat = state.velocities.copy(), state.heat
    acceleration = atoms.get_forces() / masses
    records = []
    for step in range(1, dynamics.every * dynamics.n_records + 1):
        velocities += dt / 2 * acceleration
        positions = atoms.positions + dt / 2 * velocities
        before = _kinetic(velocities, masses)
        noise = kick * stream.standard_normal(velocities.shape)
        velocities = _at_rest(decay * velocities + noise, masses)
        heat += _kinetic(velocities, masses) - before
        atoms.positions = positions + dt / 2 * velocities
        lost = not np.isfinite(atoms.positions).all()
        if not lost:
            acceleration = atoms.get_forces() / masses
            velocities += dt / 2 * acceleration
        kinetic = _kinetic(velocities, masses)
        lost |= not kinetic < hot
        if lost or step % dynamics.every == 0:
            energy = np.nan if lost else atoms.get_potential_energy()
            records.append((atoms.positions.copy(), velocities.copy(), energy, kinetic, heat))
        if lost:
            break
    x, v, potential, kinetics, heats = map(np.array, zip(*records, strict=True))
    return Stretch(x, v, potential, kinetics, heats, _shortest_distances(ideal, x))


def _at_rest(velocities: np.ndarray, masses: np.ndarray) -> np.ndarray:
    return velocities - (masses * velocities).sum(axis=0) / masses.sum()


def _kinetic(velocities: np.ndarray, masses: np.ndarray) -> float:
    return float((masses * velocities**2).sum() / 2)


def _shortest_distances(ideal: Atoms, positions: np.ndarray) -> np.ndarray:
    """Of each record, in Ang, shape=(n_records,); NaN if any number is."""
    if not np.isfinite(positions).all():
        return np.full(len(positions), np.nan)
    i, j = np.triu_indices(len(ideal), 1)
    found: list[float] = []
    n_records = max(_MOST_PAIRS // len(i), 1)  # at a time
    for first in range(0, len(positions), n_records):
        part = positions[first : first + n_records]
        vectors = (part[:, j] - part[:, i]).reshape(-1, 3)
        _, lengths = find_mic(vectors, ideal.cell, ideal.pbc)
        found += lengths.reshape(len(part), -1).min(axis=1).tolist()
    return np.array(found)
