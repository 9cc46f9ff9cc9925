"""Eigenvalues of a Hamiltonian at wave vectors, and band edges with gradients."""

import math

import schnetpack.nn as snn
import torch
from schnetpack import properties as structure_keys

from schnetpack_phonon.models.hamiltonian.matrix import MatrixElements


def kpoint_meshes(inputs: dict[str, torch.Tensor], length: float) -> list[torch.Tensor]:
    r"""Wave vectors of each structure: a mesh with Gamma, half of it, since k and -k are alike.

    Along a periodic direction there are :math:`\lceil L |b| \rceil` points, at least one, with the
    reciprocal vector b without a factor :math:`2 \pi`: about L over the length of the cell.

    Args:
        inputs: of SchNetPack.
        length: L in Ang; 0 for Gamma alone.

    Returns:
        In units of the reciprocal cell, Gamma first, shape=(n_kpoints, 3) for each structure.
    """
    reciprocal = torch.linalg.pinv(inputs[structure_keys.cell].detach().double())
    counts = torch.ceil(length * torch.norm(reciprocal, dim=1) - 1e-6).clamp(min=1).long()
    counts = torch.where(inputs[structure_keys.pbc].reshape(-1, 3), counts, torch.ones_like(counts))
    meshes: list[torch.Tensor] = []
    for m in range(counts.shape[0]):
        axes = [torch.arange(int(counts[m, k]), device=counts.device) for k in range(3)]
        mesh = torch.cartesian_prod(axes[0], axes[1], axes[2])
        minus = (-mesh).remainder(counts[m])
        factor = torch.stack(
            [counts[m, 1] * counts[m, 2], counts[m, 2], torch.ones_like(counts[m, 2])]
        )
        first = (mesh * factor).sum(1) <= (minus * factor).sum(1)
        meshes.append(mesh[first].double() / counts[m])
    return meshes


def band_edges(
    elements: MatrixElements, n_electrons: torch.Tensor, meshes: list[torch.Tensor]
) -> torch.Tensor:
    """Highest filled and lowest empty level over the wave vectors of each structure.

    Gradients are those of Hellmann and Feynman: eigenvectors are constant. Those of degenerate
    levels are averaged, so that they have the symmetry of the crystal; where levels cross, they are
    those of the levels at this point. Second derivatives are not those of the levels. With an odd
    number of electrons the highest level is half filled, and both edges are this level.

    Args:
        elements: of :class:`.Hamiltonian`.
        n_electrons: of each structure, shape=(n_structures,).
        meshes: wave vectors of each structure, shape=(n_kpoints, 3).

    Returns:
        In eV, float64, shape=(n_structures, 2).

    Raises:
        ValueError: if all orbitals of a structure are filled, or none.
    """
    n = n_electrons.shape[0]
    filled = torch.stack([(n_electrons + 1) // 2 - 1, n_electrons // 2], dim=1)
    if bool((filled[:, 0] < 0).any() or (filled[:, 1] >= elements.sizes).any()):
        raise ValueError(
            "a structure has electrons for all of its orbitals, or for none; expected filled and "
            "empty levels: give its elements more shells, or other numbers of electrons, in "
            "orbitals"
        )
    degenerate = 1e-6  # closer levels, in eV, count as one
    values = elements.values.double()
    ends = elements.sizes.square().cumsum(0)
    outward = torch.tensor([1.0, -1.0], dtype=values.dtype, device=values.device)
    with torch.no_grad():
        best = torch.full((n, 2), -math.inf, dtype=values.dtype, device=values.device)
        weights = torch.zeros(values.shape[0], 2, dtype=values.dtype, device=values.device)
        for q in range(max([len(mesh) for mesh in meshes])):
            here = torch.stack([mesh[min(q, len(mesh) - 1)] for mesh in meshes])
            phases = _phases(elements, here)
            matrices = _added(elements, values * phases)
            overlaps = torch.zeros(2, len(matrices), dtype=phases.dtype, device=values.device)
            better = torch.zeros(n, 2, dtype=torch.bool, device=values.device)
            for m in range(n):
                if q < len(meshes[m]):
                    size, end = int(elements.sizes[m]), int(ends[m])
                    part = end - size * size
                    levels, vectors = _solved(matrices[part:end].reshape(size, size))
                    for edge in range(2):
                        level = levels[filled[m, edge]]
                        if bool(level * outward[edge] > best[m, edge]):
                            best[m, edge] = level * outward[edge]
                            better[m, edge] = True
                            own = vectors[:, (levels - level).abs() < degenerate]
                            overlap = own.conj() @ own.transpose(0, 1) / own.shape[1]
                            overlaps[edge, part:end] = overlap.flatten()
            new = (overlaps[:, elements.places] * phases).real.transpose(0, 1)
            weights = torch.where(better[elements.structures], new, weights)
    return snn.scatter_add(values.unsqueeze(1) * weights, elements.structures, n)


def eigenvalues(elements: MatrixElements, kpoints: torch.Tensor) -> torch.Tensor:
    """All levels of one structure, in ascending order and without gradients.

    Args:
        elements: of one structure.
        kpoints: in units of the reciprocal cell, shape=(n_kpoints, 3).

    Returns:
        In eV, float64, shape=(n_kpoints, n_orbitals).
    """
    size = int(elements.sizes[0])
    with torch.no_grad():
        found: list[torch.Tensor] = []
        for k in range(kpoints.shape[0]):
            phases = _phases(elements, kpoints[k : k + 1].double())
            matrix = _added(elements, elements.values.double() * phases)
            found.append(_solved(matrix.reshape(size, size))[0])
    return torch.stack(found)


def _phases(elements: MatrixElements, kpoints: torch.Tensor) -> torch.Tensor:
    """Phase of each element, real where all are; kpoints of each structure, shape=(n, 3)."""
    if not bool(kpoints.any()):
        return torch.ones_like(elements.images[:, 0])
    half = (2 * kpoints - (2 * kpoints).round()).abs().max() < 1e-9
    angle = 2 * math.pi * (kpoints[elements.structures] * elements.images).sum(1)
    if bool(half):
        return angle.cos().round()
    return torch.polar(torch.ones_like(angle), angle)


def _added(elements: MatrixElements, values: torch.Tensor) -> torch.Tensor:
    """Matrices of all structures, flattened, one after the other."""
    total = int(elements.sizes.square().sum())
    zeros = torch.zeros(total, dtype=values.dtype, device=values.device)
    return zeros.index_add(0, elements.places, values)


def _solved(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and eigenvectors of the Hermitian part."""
    return torch.linalg.eigh((matrix + matrix.conj().transpose(0, 1)) / 2)
