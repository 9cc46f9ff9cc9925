"""Random arrangements of a crystal whose atoms share sites, such as solid solutions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from schnetpack_phonon.common.errors import UnreadableFileError, check_at_least, check_choice
from schnetpack_phonon.structures.alloys import (
    arrangement_stream,
    family,
    site_permutations,
    vegard,
)
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from schnetpack_phonon.structures.files import checked_unitcell, formula
from schnetpack_phonon.structures.formats.cif import FULL, DisorderedSites, read_disordered_cif
from schnetpack_phonon.structures.supercells import supercell_of

log = logging.getLogger(__name__)

_VACANT = ""
_MOST_END_MEMBERS = 8


class DisorderedCrystal:
    """Random arrangements of a crystal with mixed or partial occupancies, from a CIF file.

    All arrangements have the composition of the file or, where the supercell has no such number
    of sites, the nearest one. Snapshots of symmetry-equivalent arrangements share a parent, so that
    training and test never contain the same arrangement.

    Where all sites are full, arrangements have the mean cell and, on each site, the mean position
    of their end members (Vegard's law): the crystals in which one element is on all sites of a
    kind. They are relaxed instead of the arrangements. An arrangement with vacancies is relaxed
    itself.

    Args:
        path: of the CIF file.
        n_arrangements: each gets ``data.ensemble.n_snapshots`` snapshots.
        seed: of the arrangements.
        supercell: three integers, a 3x3 matrix, or ``auto``, see :func:`.supercell_of`.
        name: in tables and names of files; that of the file by default.
        relax: relax cell and positions with the calculator, keeping the symmetry.
        force_constants: ``end_members`` takes the average over the end members, weighted by
            composition, with the arrangement's own masses; ``own`` calculates them for each
            arrangement, which takes some hundred force calculations without symmetry. By default
            ``end_members`` where there are no vacancies.
        calculator: of the relaxation; by default that of the labels.
        work_dir: where a relative path starts.
        min_length: of an automatic supercell, in Ang.
        min_atoms: of an automatic supercell.

    Raises:
        ValueError: for a file without disorder, or a supercell in which an element of the file gets
            no site.
    """

    def __init__(
        self,
        path: str,
        n_arrangements: int,
        seed: int,
        supercell: Sequence[Any] | str = "auto",
        name: str | None = None,
        relax: bool = True,
        force_constants: str | None = None,
        calculator: Any = None,
        work_dir: str = ".",
        min_length: float = 7.5,
        min_atoms: int = 2,
    ):
        check_at_least(1, n_arrangements=n_arrangements)
        given = _read(Path(work_dir, path))
        vacant = any(sum(own.values()) < 1 - FULL for own in given.occupancies)
        choices = ("own",) if vacant else ("end_members", "own")
        force_constants = force_constants or choices[0]
        check_choice(choices, force_constants=force_constants)
        self.relax, self.calculator = relax, calculator
        name = name or Path(path).stem
        matrix = supercell_of(given.sites, supercell, min_length, min_atoms)
        sites = _Sites(name, str(path), given, matrix, vacant)
        self.crystals = [
            replace(
                sites.arranged(arrangement_stream(seed, name, k), k),
                own_force_constants=force_constants == "own",
            )
            for k in range(n_arrangements)
        ]


def _read(path: Path) -> DisorderedSites:
    if not path.is_file():
        raise FileNotFoundError(f"no structure file at {path.absolute()}")
    try:
        given = read_disordered_cif(path)
    except Exception as error:  # ASE raises whatever its reader raises
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise UnreadableFileError(f"cannot read {path}: {reason}") from error
    if all(len(own) == 1 and sum(own.values()) > 1 - FULL for own in given.occupancies):
        raise ValueError(
            f"{path} has one atom on each site; expected mixed or partial occupancies. An ordered "
            f"crystal is data/structure=file data.structure.path={path}"
        )
    return given


class _Sites:
    """The sites of a supercell and what may be on them."""

    def __init__(
        self,
        name: str,
        path: str,
        given: DisorderedSites,
        matrix: tuple[tuple[int, int, int], ...],
        vacant: bool,
    ):
        self.name, self.path = name, path
        lattice = Crystal(name, given.sites, matrix)
        self.supercell = lattice.supercell
        self.kinds = self.supercell.numbers - 1
        self.elements, self.counts = [], []
        for kind, own in enumerate(given.occupancies):
            shares = {**own, _VACANT: max(1 - sum(own.values()), 0.0)}
            if shares[_VACANT] < FULL:
                del shares[_VACANT]
            self.elements.append(list(shares))
            n_sites = int((self.kinds == kind).sum())
            self.counts.append(self._whole(shares, n_sites))
        mixed = [k for k, elements in enumerate(self.elements) if len(elements) > 1]
        self.sites = np.flatnonzero(np.isin(self.kinds, mixed))
        self.permutations = site_permutations(lattice, self.sites)
        self.end_members = [] if vacant else self._end_members(given.sites, matrix)

    def _whole(self, shares: Mapping[str, float], n_sites: int) -> list[int]:
        """Numbers of atoms of each element on sites of a kind, nearest to their shares."""
        exact = np.array(list(shares.values())) * n_sites / sum(shares.values())
        counts = np.floor(exact + 1e-9).astype(int)
        for k in np.argsort(counts - exact, kind="stable")[: n_sites - counts.sum()]:
            counts[k] += 1
        wanted = ", ".join(f"{e or 'vacancies'} {share:g}" for e, share in shares.items())
        here = ", ".join(
            f"{e or 'vacancies'} {n}" for e, n in zip(shares, counts.tolist(), strict=True)
        )
        if (counts == 0).any():
            raise ValueError(
                f"{self.path}: of {n_sites} sites with {wanted}, the supercell takes {here}; "
                "expected at least one of each: set a larger data.structure.supercell"
            )
        if np.abs(counts - exact).max() > 0.01:
            log.warning(
                "%s: %s is taken as %s of %d sites; a larger data.structure.supercell comes nearer",
                *(self.path, wanted, here, n_sites),
            )
        return counts.tolist()

    def _end_members(
        self, sites: Atoms, matrix: tuple[tuple[int, int, int], ...]
    ) -> list[tuple[Crystal, float]]:
        choices = list(product(*(range(len(elements)) for elements in self.elements)))
        if len(choices) > _MOST_END_MEMBERS:
            raise ValueError(
                f"{self.path} has {len(choices)} end members, one for each choice of elements; "
                f"expected at most {_MOST_END_MEMBERS}"
            )
        found = []
        for choice in choices:
            elements = [own[k] for own, k in zip(self.elements, choice, strict=True)]
            atoms = sites.copy()
            atoms.numbers = [atomic_numbers[elements[kind]] for kind in sites.numbers - 1]
            atoms.set_masses(None)
            shares = [n[k] / sum(n) for n, k in zip(self.counts, choice, strict=True)]
            found.append((elements, atoms, float(np.prod(shares))))
        names = Counter(formula(atoms) for _, atoms, _ in found)
        return [
            (
                Crystal(
                    formula(atoms)
                    if names[formula(atoms)] == 1
                    else f"{formula(atoms)}_{'-'.join(elements)}",
                    checked_unitcell(atoms, self.path, None),
                    matrix,
                ),
                weight,
            )
            for elements, atoms, weight in found
        ]

    def arranged(self, stream: np.random.Generator, number: int) -> Crystal:
        chosen = np.zeros(len(self.supercell), dtype=np.uint8)  # of the elements of each kind
        for kind, counts in enumerate(self.counts):
            own = np.repeat(np.arange(len(counts)), counts)
            chosen[self.kinds == kind] = stream.permutation(own)
        symbols = [self.elements[kind][k] for kind, k in zip(self.kinds, chosen, strict=True)]
        there = np.array([symbol != _VACANT for symbol in symbols])
        atoms = self.supercell[there]
        atoms.numbers = [atomic_numbers[symbol] for symbol in symbols if symbol]
        atoms.set_masses(None)
        crystal = Crystal(
            f"{self.name}-{number}",
            atoms,
            supercell_matrix((1, 1, 1)),
            tuple(self.end_members),
            composition=self.name,
            parent=f"{self.name}/{family(chosen[self.sites], self.permutations)}",
        )
        return vegard(crystal, {}) if self.end_members else crystal
