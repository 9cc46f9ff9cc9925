"""Quartic crystals, and their self-consistent force constants."""

import numpy as np
from ase import units
from ase.neighborlist import neighbor_list

from schnetpack_phonon.common import properties
from schnetpack_phonon.phonons.harmonic import harmonic_model
from schnetpack_phonon.phonons.instabilities import Instabilities
from tests.phonons.force_constants_fixtures import THZ

HBAR = units._hbar / units._e * 1e10 * (units._e / units._amu) ** 0.5  # eV sqrt(amu Ang^2 / eV)


ANY = Instabilities("floor", 0.5)


class Quartic:
    """Crystals of energy u K u / 2 + q sum over pairs |u_i - u_j|^4; keeps what it was asked for.

    Args:
        crystals: (crystal, force constants, q, distance of the pairs) of each.
        failing: calls that fail, counted from 0 over all jobs; the static ones are not counted.
    """

    static = 100.0

    def __init__(self, *crystals, failing=lambda n: False):
        self.known = {}
        for crystal, force_constants, q, distance in crystals:
            ideal = crystal.supercell
            i, j = neighbor_list("ij", ideal, distance + 0.1)
            once = i < j
            known = ideal, force_constants, q, i[once], j[once]
            self.known[str(ideal.symbols)] = known
        self.failing = failing
        self.asked = []
        self.jobs = []

    def __call__(self, what, jobs):
        labels = []
        for text, atoms in jobs:
            self.jobs.append(text)
            if "ideal" in text:
                labels.append(self.label(atoms))
                continue
            failed = self.failing(len(self.asked))
            self.asked.append(atoms.positions.copy())
            labels.append(None if failed else self.label(atoms))
        return labels

    def label(self, atoms):
        ideal, k, q, i, j = self.known[str(atoms.symbols)]
        u = atoms.positions - ideal.positions
        forces = -np.einsum("ijab,jb->ia", k, u)
        apart = u[j] - u[i]
        squares = (apart**2).sum(axis=1)
        energy = self.static - 0.5 * (forces * u).sum() + q * (squares**2).sum()
        pull = 4 * q * squares[:, None] * apart
        np.add.at(forces, i, pull)
        np.add.at(forces, j, -pull)
        return {properties.energy: np.array([energy]), properties.forces: forces}


class Given:
    """A source of force constants that are known."""

    def __init__(self, **force_constants):
        self.force_constants = force_constants
        self.crystals = []

    settings = {"source": "given"}  # noqa: RUF012
    calculator = None

    def models(self, crystals, temperatures, label):
        self.crystals = [crystal.name for crystal in crystals]
        return {
            (c.name, float(t)): harmonic_model(c.supercell, self.force_constants[c.name], ANY)
            for c in crystals
            for t in temperatures
        }


def steps_of(model):
    return model.renormalization.steps


def variances(omega, temperature, statistics):
    """<Q^2> of modes of omega in sqrt(eV/Ang^2/amu), in amu Ang^2."""
    if statistics == "classical":
        return units.kB * temperature / omega**2
    coth = 1 / np.tanh(HBAR * omega / (2 * units.kB * temperature)) if temperature else 1.0
    return HBAR / (2 * omega) * coth


def oscillators(omega, temperature, statistics):
    """Free energy of oscillators in eV."""
    if statistics == "classical":
        kt = units.kB * temperature
        return kt * np.log(HBAR * omega / kt).sum()
    energy = HBAR * omega.sum() / 2
    if temperature:
        kt = units.kB * temperature
        energy += kt * np.log(1 - np.exp(-HBAR * omega / kt)).sum()
    return energy


# Two atoms: their distance r is one particle of the reduced mass in V = k r^2 / 2 + q r^4, an
# isotropic oscillator in three dimensions.

K, Q = -4.0, 30.0


def reduced_mass(crystal) -> float:
    masses = crystal.unitcell.get_masses()
    return masses.prod() / masses.sum()


def self_consistent_oscillator(mass, temperature, statistics, k=K, q=Q):
    """omega^2 m = k + 20 q s, s = <x^2>, and the bound on the free energy; <r^4> = 15 s^2."""
    stiffness = 20.0
    for _ in range(500):
        omega = np.sqrt(stiffness / mass)
        s = variances(omega, temperature, statistics) / mass
        stiffness = (stiffness + k + 20 * q * s) / 2
    anharmonic = 1.5 * (k - stiffness) * s + 15 * q * s**2
    return omega * THZ, oscillators(np.full(3, omega), temperature, statistics) + anharmonic
