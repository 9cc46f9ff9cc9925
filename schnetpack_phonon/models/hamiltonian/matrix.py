"""A learned Hamiltonian: all matrix elements of a batch of structures."""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import schnetpack.nn as snn
import torch
from ase.data import atomic_numbers
from schnetpack import properties as structure_keys
from torch import nn

from schnetpack_phonon.common.errors import check_at_least, check_positive
from schnetpack_phonon.models.cutoffs import PolynomialCutoff
from schnetpack_phonon.models.hamiltonian.environment import Environment
from schnetpack_phonon.models.hamiltonian.orbitals import SHELLS, orbitals_of
from schnetpack_phonon.models.hamiltonian.two_centre import N_CHANNELS, TwoCentre


class MatrixElements(NamedTuple):
    """Elements that add up to a matrix A for each structure; H is its Hermitian part.

    Attributes:
        values: in eV, shape=(n,).
        places: of each in the flattened matrices of all structures, one after the other.
        bonds: of each; after all bonds come all atoms, for elements between orbitals of one.
        structures: of bonds and atoms, shape=(n_bonds + n_atoms,).
        images: lattice vector between the cells of the two atoms of each bond in units of the cell,
            for the phase of a wave vector, and zero; shape=(n_bonds + n_atoms, 3).
        sizes: number of orbitals of each structure, shape=(n_structures,).
    """

    values: torch.Tensor
    places: torch.Tensor
    bonds: torch.Tensor
    structures: torch.Tensor
    images: torch.Tensor
    sizes: torch.Tensor


class Hamiltonian(nn.Module):
    r"""Tight-binding matrix of s, p and d orbitals with learned two-centre terms.

    Hoppings along a bond of length r between shells of elements A and B are

    .. math:: V(r) = f(r) \left( (\tfrac12 + h_{AB}) V_0(r) + \sum_k c_{AB,k} g_k(r) \right)

    with Harrison's universal :math:`V_0`, Gaussians :math:`g_k` and a smooth cutoff f. Half of
    :math:`V_0` is where learning starts: Harrison counts nearest neighbours alone. For bonds that
    are shorter than all of these two elements in the training set, r in the learned sum is bounded
    (:attr:`nearest`), so that it stays what it is there. On-site energies start from those of free
    atoms. Each neighbour adds a crystal field of the same angular forms to
    the on-site block, which may mix two shells where the site is polar.

    The matrix is Hermitian, turns with the crystal, and does not depend on the order of atoms and
    bonds.

    Args:
        elements: symbols; only they may occur. None of them for a matrix that waits for some.
        cutoff: of bonds in Ang; that of the neighbour list, or less.
        n_radial: number of Gaussians.
        orbitals: see :func:`.orbitals_of`.
        n_in: number of scalar features of the representation on which hoppings and on-site energies
            depend, see :class:`.Environment`; 0 for pair terms alone.

    Attributes:
        nearest: shortest distances of the training set in Ang by elements, zero before a fit,
            shape=(n_elements, n_elements).

    Raises:
        ValueError: for elements that are named twice, not in the table, or given orbitals without
            being named, and for a cutoff or a number of Gaussians that is not positive.
    """

    index: torch.Tensor
    electrons: torch.Tensor
    shells: torch.Tensor
    start: torch.Tensor
    widths: torch.Tensor
    same: torch.Tensor
    nearest: torch.Tensor
    shortest: Final[float] = 0.5  # Ang; no two atoms are that close
    margin: Final[float] = 0.1  # Ang below the nearest bond within which learned terms may change

    def __init__(
        self,
        elements: Sequence[str],
        cutoff: float,
        n_radial: int = 16,
        orbitals: Mapping[str, Mapping[str, float]] | None = None,
        n_in: int = 0,
    ):
        super().__init__()
        check_positive("Ang", cutoff=cutoff)
        check_at_least(1, n_radial=n_radial)
        others = sorted({*(orbitals or {})} - {*elements})
        if others:
            raise ValueError(
                f"orbitals are given for {', '.join(others)}; expected some of elements, which are "
                f"{list(elements)}"
            )
        own = [orbitals_of(symbol, orbitals) for symbol in elements]
        n = len(own)
        if len(set(elements)) < n:
            raise ValueError(f"elements are {list(elements)}; expected different symbols")
        index = torch.full((101,), -1)
        index[[atomic_numbers[symbol] for symbol in elements]] = torch.arange(n)
        energies = [[each.energies.get(shell, math.nan) for shell in SHELLS] for each in own]
        start = torch.tensor(energies).reshape(n, 3)
        same = [a == b for a in range(3) for b in range(a, 3) for _ in range(a + 1)]
        self.register_buffer("index", index)
        self.register_buffer("electrons", torch.tensor([each.electrons for each in own]))
        self.register_buffer("shells", start.isfinite())
        self.register_buffer("start", start.nan_to_num())
        self.register_buffer("nearest", torch.zeros(n, n))
        self.register_buffer("widths", torch.tensor([1, 3, 5]), persistent=False)
        self.register_buffer("same", torch.tensor(same), persistent=False)
        self.cutoff = float(cutoff)
        self.two_centre = TwoCentre()
        self.radial_basis = snn.GaussianRBF(n_radial, cutoff, start=1.0)
        self.cutoff_fn = PolynomialCutoff(cutoff, exponent=3)
        self.energies = nn.Parameter(torch.empty(n, 3))
        self.universal = nn.Parameter(torch.empty(n, n, N_CHANNELS))
        self.hoppings = nn.Parameter(torch.empty(n, n, N_CHANNELS, n_radial))
        self.field = nn.Parameter(torch.empty(n, n, N_CHANNELS, n_radial))
        self.environment = Environment(n_in) if n_in else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to free atoms and half of Harrison's hoppings."""
        for parameter in self.parameters(recurse=False):
            nn.init.zeros_(parameter)
        if self.environment is not None:
            self.environment.reset_parameters()

    def hoppings_along(self, distances: torch.Tensor, a: str, b: str) -> torch.Tensor:
        """Hoppings from an atom of element a to one of element b.

        Args:
            distances: in Ang, shape=(n,).
            a: symbol; its shell is the first of a channel.
            b: symbol; its shell is the second one.

        Returns:
            In eV, in the order of :data:`.CHANNELS`, shape=(n, 10); those of shells that an element
            lacks have no meaning.
        """
        first, second = (self.index[atomic_numbers[z]].expand(len(distances)) for z in (a, b))
        return self._strengths(first, second, distances)[0].T

    def note_bonds(self, inputs: dict[str, torch.Tensor]) -> None:
        """Takes distances of a training structure into :attr:`nearest`."""
        z = self.elements(inputs)
        i, j = z[inputs[structure_keys.idx_i]], z[inputs[structure_keys.idx_j]]
        n = len(self.start)
        distance = torch.norm(inputs[structure_keys.Rij], dim=1).to(self.nearest)
        nearest = torch.where(self.nearest > 0, self.nearest, torch.inf).flatten()
        nearest = nearest.scatter_reduce(0, i * n + j, distance, "amin")
        self.nearest = torch.where(nearest.isfinite(), nearest, 0.0).reshape(n, n)

    def n_electrons(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Valence electrons of each structure, shape=(n_structures,)."""
        own = self.electrons[self.elements(inputs)]
        return snn.scatter_add(
            own, inputs[structure_keys.idx_m], inputs[structure_keys.n_atoms].shape[0]
        )

    def elements(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Place of each atom's element among ours, shape=(n_atoms,).

        Raises:
            ValueError: for an element that is none of ours.
        """
        z = inputs[structure_keys.Z]
        index = self.index[z]
        if bool((index < 0).any()):
            raise ValueError(
                f"a structure has atoms of atomic number {int(z[index < 0][0])}; the Hamiltonian "
                "has no orbitals for this element: name it in elements, and train with it"
            )
        return index

    def forward(self, inputs: dict[str, torch.Tensor]) -> MatrixElements:
        """All elements, from the bonds ``Rij`` of SchNetPack's inputs.

        Raises:
            ValueError: for an element that is none of ours, or atoms that overlap.
        """
        z = self.elements(inputs)
        i, j = inputs[structure_keys.idx_i], inputs[structure_keys.idx_j]
        vectors, idx_m = inputs[structure_keys.Rij], inputs[structure_keys.idx_m]
        distance = torch.norm(vectors, dim=1)
        if bool((distance < self.shortest).any()):
            raise ValueError(
                f"two atoms are closer than {self.shortest} Ang; expected separate atoms: look for "
                "atoms that are twice in the structure"
            )
        n, n_bonds = z.shape[0], i.shape[0]
        atoms = torch.arange(n, device=i.device)
        # First orbital of each shell of each atom, counted over the batch.
        shells = self.shells[z]
        counts = shells * self.widths
        first = (counts.flatten().cumsum(0) - counts.flatten()).reshape(n, 3).T
        sizes = snn.scatter_add(counts.sum(1), idx_m, inputs[structure_keys.n_atoms].shape[0])
        before = sizes.cumsum(0) - sizes  # orbitals of the structures before
        squares = (sizes.square().cumsum(0) - sizes.square()) - before * (sizes + 1)
        # Blocks are those of all bonds, and then of all atoms: the last dimension from here on.
        structures = torch.cat([idx_m[i], idx_m])
        left, right = torch.cat([i, atoms]), torch.cat([j, atoms])
        near, shells = distance < self.cutoff, shells.T
        of_i = shells.index_select(1, i) & near
        left_shells, right_shells = torch.cat([of_i, shells], dim=1), shells.index_select(1, right)
        rows = (squares[idx_m] + first * sizes[idx_m]).index_select(1, left)
        columns, size = first.index_select(1, right), sizes[structures]

        hoppings, field = self._strengths(z[i], z[j], distance)
        energies = (self.start + self.energies)[z]
        if self.environment is not None:
            shift, factor = self.environment(inputs)
            energies, hoppings = energies + shift, factor.T * hoppings
        strengths = torch.cat([hoppings, field], dim=1)
        u = (vectors / distance.unsqueeze(1)).T.contiguous()

        values: list[torch.Tensor] = []
        places: list[torch.Tensor] = []
        bonds: list[torch.Tensor] = []
        channel = 0
        for a in range(3):
            for b in range(a, 3):
                here = torch.nonzero(left_shells[a] & right_shells[b])[:, 0]
                n_between = int((here < n_bonds).sum())
                between, sites = here[:n_between], here[n_between:] - n_bonds
                on_site = torch.nonzero(of_i[a] & shells[b].index_select(0, i))[:, 0]
                own = strengths[channel : channel + a + 1]
                own = own.index_select(1, torch.cat([between, n_bonds + on_site]))
                channel += a + 1
                if a != b:
                    own = 2 * own  # the other half is the Hermitian conjugate
                along = u.index_select(1, torch.cat([between, on_site]))
                block = self.two_centre(along, own, a, b).flatten(0, 1)
                # On one atom: sum over its neighbours.
                site = torch.zeros(block.shape[0], n, dtype=u.dtype, device=u.device)
                site = site.index_add(1, i.index_select(0, on_site), block[:, n_between:])
                if a == b:
                    one = torch.eye(2 * a + 1, dtype=u.dtype, device=u.device).flatten()
                    site = site + one.unsqueeze(1) * energies[:, a]
                down = torch.arange(2 * a + 1, device=i.device).reshape(-1, 1, 1)
                across = torch.arange(2 * b + 1, device=i.device).reshape(-1, 1)
                corner = (rows[a] + columns[b]).index_select(0, here)
                place = corner + down * size.index_select(0, here) + across
                site = site.index_select(1, sites)
                values.append(torch.cat([block[:, :n_between], site], dim=1).flatten())
                places.append(place.flatten())
                bonds.append(here.expand(place.shape).flatten())
        return MatrixElements(
            torch.cat(values),
            torch.cat(places),
            torch.cat(bonds),
            structures,
            lattice_images(inputs),
            sizes,
        )

    def _strengths(
        self, a: torch.Tensor, b: torch.Tensor, distance: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hoppings and crystal fields of bonds between elements a and b, each (10, n_bonds)."""
        # Between shells of one kind, a bond is its own reverse.
        same = self.same.unsqueeze(1)
        learned = torch.where(
            same, (self.hoppings + self.hoppings.transpose(0, 1)) / 2, self.hoppings
        )
        factor = torch.where(
            self.same, (self.universal + self.universal.transpose(0, 1)) / 2, self.universal
        )
        pair = a * self.start.shape[0] + b
        nearest = self.nearest.flatten()[pair]
        short = (nearest - distance).clamp(min=0)
        inside = distance + short - self.margin * (1 - torch.exp(-short / self.margin))
        present, own = torch.unique(pair, return_inverse=True)
        table = torch.cat([learned, self.field], dim=2).flatten(0, 1)[present]
        start, width = self.radial_basis.offsets.unsqueeze(1), self.radial_basis.widths.unsqueeze(1)
        # Gaussians of far centres stay above 1e-30: numbers below 1e-38 would be slow.
        radial = (-0.5 * ((inside - start) / width).square()).clamp(min=-69.0).exp()
        curves = (table.flatten(0, 1) @ radial).unflatten(0, table.shape[:2])
        hoppings, field = curves.gather(0, own.expand(1, table.shape[1], -1))[0].chunk(2)
        scale = 0.5 + factor.flatten(0, 1).T.index_select(1, pair)
        cut = self.cutoff_fn(distance)
        return cut * (scale * self.two_centre.universal(distance) + hoppings), cut * field


def lattice_images(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """See :class:`MatrixElements`, shape=(n_bonds + n_atoms, 3)."""
    offsets = inputs[structure_keys.offsets].detach().double()
    inverse = torch.linalg.pinv(inputs[structure_keys.cell].detach().double())
    of_bonds = inputs[structure_keys.idx_m][inputs[structure_keys.idx_i]]
    images = (offsets.unsqueeze(2) * inverse[of_bonds]).sum(1).round()
    return torch.cat([images, images.new_zeros(inputs[structure_keys.Z].shape[0], 3)])
