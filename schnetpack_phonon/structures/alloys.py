"""Mixed crystals: random arrangements of two elements on one sublattice of an antiperovskite."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from schnetpack_phonon.common.errors import check_at_least, check_choice, check_positive
from schnetpack_phonon.structures.atom_properties import magnetic_moments, own_masses
from schnetpack_phonon.structures.crystals import (
    DECIMALS,
    Crystal,
    antiperovskite,
    check_formulas,
    supercell_matrix,
)

_SITE = r"([A-Z][a-z]?|\([A-Z][a-z]?,[A-Z][a-z]?\))"


class MixedAntiperovskites:
    """Random arrangements of mixed cubic antiperovskites such as ``Ag3S(Br,I)``.

    The lattice is the average over the end members, weighted by composition (Vegard's law), or
    given. Snapshots of symmetry-equivalent arrangements share a parent, so that training and test
    never contain the same arrangement.

    Args:
        names: formulas with one pair of elements in parentheses: ``Ag3S(Br,I)``,
            ``Ag3(S,Se)Br``.
        n_arrangements: per formula; each gets ``data.ensemble.n_snapshots`` snapshots.
        seed: of the arrangements.
        fraction: of the second element; random (uniform) for each arrangement by default.
        supercell: three integers or a 3x3 matrix.
        relax: relax the end members with the calculator.
        lattice_constants: formula of an end member, or of the mixture for all its arrangements,
            -> Angstrom.
        force_constants: ``end_members`` takes the average over the end members, weighted by
            composition, with the arrangement's own masses; ``own`` calculates them for each
            arrangement, which takes some hundred force calculations without symmetry.
        calculator: of the relaxation; by default that of the labels.
    """

    def __init__(
        self,
        names: Sequence[str],
        n_arrangements: int,
        seed: int,
        fraction: float | None = None,
        supercell: Sequence[Any] = (2, 2, 2),
        relax: bool = True,
        lattice_constants: Mapping[str, float] | None = None,
        force_constants: str = "end_members",
        calculator: Any = None,
    ):
        check_at_least(1, n_arrangements=n_arrangements)
        check_choice(("end_members", "own"), force_constants=force_constants)
        check_formulas(names)
        if fraction is not None and not 0 <= fraction <= 1:
            raise ValueError(f"data.structure.fraction is {fraction}; expected 0 <= x <= 1")
        self.relax, self.calculator = relax, calculator
        self.crystals: list[Crystal] = []
        matrix = supercell_matrix(supercell)
        constants = dict(lattice_constants or {})
        for name in names:
            members = [
                Crystal(f, antiperovskite(f, constants.get(f)), matrix)
                for f in end_member_formulas(name)
            ]
            sublattice = _Sublattice(name, members)
            for k in range(n_arrangements):
                stream = arrangement_stream(seed, name, k)
                crystal = sublattice.arranged(sublattice.pattern(stream, fraction), k)
                if name in constants:
                    check_positive("Ang", **{f"lattice constant of {name}": constants[name]})
                    crystal = _in_cell(crystal, constants[name] * np.array(matrix))
                    crystal = replace(crystal, own_lattice=True)
                own = force_constants == "own"
                self.crystals.append(replace(crystal, own_force_constants=own))


def end_member_formulas(name: str) -> list[str]:
    """``Ag3S(Br,I)`` -> ``[Ag3SBr, Ag3SI]``.

    Raises:
        ValueError: for a formula of another form.
    """
    match = re.fullmatch(f"{_SITE}3{_SITE}{_SITE}", name)
    mixed = match and [site for site in match.groups() if site.startswith("(")]
    if not match or not mixed or len(mixed) > 1:
        raise ValueError(
            f"{name!r} is not a mixed antiperovskite with one pair of elements; expected a formula "
            "like 'Ag3S(Br,I)' or 'Ag3(S,Se)Br'"
        )
    first, second = mixed[0][1:-1].split(",")
    if first == second:
        raise ValueError(f"{name!r} mixes {first} with itself")
    return [name.replace(mixed[0], element) for element in (first, second)]


class _Sublattice:
    """The sites that two elements share in a supercell."""

    def __init__(self, name: str, members: Sequence[Crystal]):
        self.name = name
        self.members = members
        self.cells = [member.supercell for member in members]
        # Not all atoms of the first element: another sublattice may hold it too.
        self.sites = np.flatnonzero(self.cells[0].numbers != self.cells[1].numbers)
        self.permutations = site_permutations(members[0], self.sites)

    def pattern(self, stream: np.random.Generator, fraction: float | None) -> np.ndarray:
        """True on sites of the second element, shape=(n_sites,)."""
        n_sites = len(self.sites)
        if fraction is None:
            fraction = int(stream.integers(n_sites + 1)) / n_sites
        n_second = fraction * n_sites
        if abs(n_second - round(n_second)) > 1e-6:
            raise ValueError(
                f"data.structure.fraction is {fraction}, {n_second:g} of {n_sites} sites of "
                f"{self.name}; expected a multiple of 1/{n_sites}, or a larger supercell"
            )
        pattern = np.zeros(n_sites, dtype=bool)
        pattern[stream.permutation(n_sites)[: round(n_second)]] = True
        return pattern

    def arranged(self, pattern: np.ndarray, number: int) -> Crystal:
        fraction = float(pattern.mean())
        atoms = self.cells[0].copy()
        second = self.sites[pattern]
        atoms.numbers[second] = self.cells[1].numbers[second]
        weights = (1 - fraction, fraction)
        crystal = Crystal(
            f"{self.name}-{number}",
            atoms,
            supercell_matrix((1, 1, 1)),
            tuple(zip(self.members, weights, strict=True)),
            composition=f"{self.name} {fraction:g}",
            parent=f"{self.name}/{family(pattern, self.permutations)}",
        )
        return vegard(crystal, {})


def arrangement_stream(seed: int, name: str, number: int) -> np.random.Generator:
    """Random numbers of one arrangement, the same however many are drawn."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*name.encode(), number)))


def site_permutations(crystal: Crystal, sites: np.ndarray) -> np.ndarray:
    """What each symmetry operation of a supercell makes of these sites, counted among themselves.

    Args:
        crystal: whose operations map the sites on each other.
        sites: atoms of the supercell, shape=(n_sites,).

    Returns:
        shape=(n_operations, n_sites).
    """
    permutations = crystal.phonopy().symmetry.atomic_permutations
    place = np.full(permutations.shape[1], -1)
    place[sites] = np.arange(len(sites))
    return place[permutations[:, sites]]


def family(pattern: np.ndarray, permutations: np.ndarray) -> str:
    """The same for all symmetry-equivalent arrangements.

    Args:
        pattern: which element is on each site, 0 to 255, shape=(n_sites,).
        permutations: of :func:`site_permutations`.
    """
    canonical = min(row.tobytes() for row in pattern[permutations].astype(np.uint8))
    return "".join(map(str, canonical))


def vegard(crystal: Crystal, relaxed: Mapping[str, Crystal]) -> Crystal:
    """A mixed crystal in the average cell of its end members, unless its lattice was given.

    Each atom has the mass that its element has on this site of an end member, and the average of
    their positions on it, relative to the cell.

    Args:
        crystal: with end members.
        relaxed: end members that replace others of the same name.
    """
    members = tuple((relaxed.get(m.name, m), weight) for m, weight in crystal.end_members)
    unitcell = crystal.unitcell.copy()
    masses = unitcell.get_masses()
    for member, _ in reversed(members):
        copies = len(unitcell) // len(member.unitcell)  # one after the other, as phonopy has them
        same = unitcell.numbers == np.repeat(member.unitcell.numbers, copies)
        masses[same] = np.repeat(member.unitcell.get_masses(), copies)[same]
    unitcell.set_masses(masses)
    here = unitcell.get_scaled_positions(wrap=False)
    steps = np.zeros_like(here)
    for member, weight in members:
        step = member.supercell.get_scaled_positions(wrap=False) - here
        step -= step.round()
        steps += weight * (step - step.mean(axis=0))
    if np.abs(steps @ unitcell.cell.array).max() > 10.0**-DECIMALS:
        unitcell.set_scaled_positions(here + steps)
    crystal = replace(crystal, unitcell=unitcell, end_members=members)
    if crystal.own_lattice:
        return crystal
    return _in_cell(crystal, np.sum([w * m.supercell.cell.array for m, w in members], axis=0))


def plain(crystal: Crystal) -> dict[str, Any]:
    """A crystal as plain values."""
    values_of: dict[str, Any] = {
        "formula": str(crystal.unitcell.symbols),
        "cell": crystal.unitcell.cell.array.round(6).tolist(),
        "positions": crystal.unitcell.positions.round(6).tolist(),
        "supercell": [list(row) for row in crystal.supercell_matrix],
    }
    own = own_masses(crystal.unitcell), magnetic_moments(crystal.unitcell)
    for key, values in zip(("masses", "magnetic_moments"), own, strict=True):
        if values is not None:  # of natural elements without moments there is nothing to say
            values_of[key] = values.round(6).tolist()
    if crystal.end_members:
        values_of["end_members"] = {c.name: [plain(c), w] for c, w in crystal.end_members}
        values_of["own_force_constants"] = crystal.own_force_constants
        if crystal.own_lattice:
            values_of["own_lattice"] = True
    return values_of


def replaced(crystals: Sequence[Crystal], own: Mapping[str, Crystal]) -> list[Crystal]:
    """Crystals of which those in ``own`` are replaced, as end members too."""
    return [own.get(c.name) or (vegard(c, own) if c.end_members else c) for c in crystals]


def _in_cell(crystal: Crystal, cell: np.ndarray) -> Crystal:
    unitcell = crystal.unitcell.copy()
    unitcell.set_cell(cell, scale_atoms=True)
    return replace(crystal, unitcell=unitcell)


def end_members(crystals: Sequence[Crystal]) -> list[Crystal]:
    """The crystals that can be relaxed with their own symmetry, each once."""
    found = {c.name: c for mix in crystals for c, _ in mix.end_members or ((mix, 1.0),)}
    return list(found.values())
