"""Eigenvalues of a Hamiltonian at wave vectors, those next to the gap with gradients."""

import math

import torch
import torch.nn.functional as F
from schnetpack import properties as structure_keys

from schnetpack_phonon.common import properties
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
    if length == 0:
        gamma = torch.zeros(1, 3, dtype=torch.double, device=inputs[structure_keys.cell].device)
        return [gamma] * inputs[structure_keys.n_atoms].shape[0]
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


def labelled_kpoints(inputs: dict[str, torch.Tensor], meshes: list[torch.Tensor]) -> torch.Tensor:
    """Wave vectors of the labels of levels; those of the meshes where the inputs have none.

    Returns:
        In units of the reciprocal cell, NaN where a structure has fewer, float64,
        shape=(n_structures, n_kpoints, 3).
    """
    if properties.kpoints in inputs:
        return inputs[properties.kpoints][:, :, :3].double()
    n = max([len(mesh) for mesh in meshes])
    padded = [F.pad(mesh, [0, 0, 0, n - len(mesh)], value=math.nan) for mesh in meshes]
    return torch.stack(padded)


def joined(
    meshes: list[torch.Tensor], kpoints: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Wave vectors of meshes, and further ones behind them, each once.

    Args:
        meshes: of each structure, Gamma first, shape=(n, 3).
        kpoints: of :func:`labelled_kpoints`.

    Returns:
        For each structure the wave vectors of both, and where among them its ``kpoints`` are,
        shape=(n_kpoints,), with Gamma in place of NaN. Levels at k are those at -k.
    """
    points: list[torch.Tensor] = []
    places: list[torch.Tensor] = []
    for m in range(len(meshes)):
        own = kpoints[m].nan_to_num()
        both = torch.cat([meshes[m], own])
        points.append(both[~_alike(both, both).tril(-1).any(1)])
        places.append(_alike(own, points[m]).long().argmax(1))
    return points, places


def _alike(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Which wave vectors have the same levels, shape=(n, 3), (m, 3) -> (n, m)."""
    first = one.unsqueeze(1)
    apart = torch.stack([first - other, first + other])
    return ((apart - apart.round()).abs().amax(3) < 1e-6).any(0)


def band_edges(
    elements: MatrixElements, n_electrons: torch.Tensor, meshes: list[torch.Tensor]
) -> torch.Tensor:
    """Highest filled and lowest empty level over the wave vectors of each structure.

    As :func:`levels_at_gap` with one level on either side.

    Returns:
        In eV, float64, shape=(n_structures, 2).
    """
    return outermost(levels_at_gap(elements, n_electrons, meshes, 1))


def outermost(levels: list[torch.Tensor]) -> torch.Tensor:
    """Band edges over all wave vectors from levels of :func:`levels_at_gap`."""
    edges = [
        torch.stack([own[:, own.shape[1] // 2 - 1].max(), own[:, own.shape[1] // 2].min()])
        for own in levels
    ]
    return torch.stack(edges)


def levels_at_gap(
    elements: MatrixElements, n_electrons: torch.Tensor, kpoints: list[torch.Tensor], n_levels: int
) -> list[torch.Tensor]:
    """The highest filled and the lowest empty levels at the wave vectors of each structure.

    Gradients are those of Hellmann and Feynman: eigenvectors are constant. Those of degenerate
    levels are averaged, so that they have the symmetry of the crystal; where levels cross, they are
    those of the levels at this point. Second derivatives are not those of the levels. With an odd
    number of electrons the highest level is half filled, and counts as filled and as empty.
    Under ``torch.no_grad`` no eigenvectors are computed.

    Args:
        elements: of :class:`.Hamiltonian`.
        n_electrons: of each structure, shape=(n_structures,).
        kpoints: wave vectors of each structure in units of its reciprocal cell,
            shape=(n_kpoints, 3).
        n_levels: number of levels on either side of the gap.

    Returns:
        In eV, ascending, float64, shape=(n_kpoints, 2 n_levels) for each structure.

    Raises:
        ValueError: if a structure has fewer filled or empty levels.
    """
    fewest = torch.minimum((n_electrons + 1) // 2, elements.sizes - n_electrons // 2)
    k = int(fewest.argmin())
    if bool(fewest[k] < n_levels):
        raise ValueError(
            f"a structure has {int(elements.sizes[k])} orbitals and {int(n_electrons[k])} valence "
            f"electrons; expected {n_levels} filled levels and as many empty ones at least: give "
            "its elements more shells, or other numbers of electrons, in orbitals, or set a "
            "smaller n_levels"
        )
    values = elements.values.double()
    squares: list[int] = elements.sizes.square().tolist()
    n_kpoints = torch.tensor([len(own) for own in kpoints], device=elements.sizes.device)
    found: list[list[torch.Tensor]] = [[] for _ in kpoints]
    for q in range(int(n_kpoints.max())):
        here = torch.stack([own[min(q, len(own) - 1)] for own in kpoints])
        matrices = _added(elements, values * _phases(elements, here)).split(squares)
        left = torch.nonzero(n_kpoints > q)[:, 0]
        # Matrices of one size together: on a GPU one call for all.
        for size in torch.unique(elements.sizes[left]):
            group = left[elements.sizes[left] == size]
            places: list[int] = group.tolist()
            together = torch.stack([matrices[m].reshape(int(size), -1) for m in places])
            levels = _at_gap(together, n_electrons[group], n_levels)
            for k, m in enumerate(places):
                found[m].append(levels[k])
    return [torch.stack(own) for own in found]


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
            found.append(torch.linalg.eigvalsh(_hermitian(matrix.reshape(size, size))))
    return torch.stack(found)


def _phases(elements: MatrixElements, kpoints: torch.Tensor) -> torch.Tensor:
    """Phase of each element, or one of all at Gamma; kpoints of each structure, shape=(n, 3)."""
    if not bool(kpoints.any()):
        return torch.ones(1, dtype=kpoints.dtype, device=kpoints.device)
    half = (2 * kpoints - (2 * kpoints).round()).abs().max() < 1e-9
    angle = 2 * math.pi * (kpoints[elements.structures] * elements.images).sum(1)
    if bool(half):
        return angle.cos().round()[elements.bonds]
    return torch.polar(torch.ones_like(angle), angle)[elements.bonds]


def _added(elements: MatrixElements, values: torch.Tensor) -> torch.Tensor:
    """Matrices of all structures, flattened, one after the other."""
    total = int(elements.sizes.square().sum())
    zeros = torch.zeros(total, dtype=values.dtype, device=values.device)
    return zeros.index_add(0, elements.places, values)


def _hermitian(matrix: torch.Tensor) -> torch.Tensor:
    return (matrix + matrix.mH) / 2


def _at_gap(matrices: torch.Tensor, n_electrons: torch.Tensor, n_levels: int) -> torch.Tensor:
    """Levels of Hermitian parts, shape=(n_matrices, n, n) -> (n_matrices, 2 n_levels)."""
    steps = torch.arange(n_levels, device=matrices.device)
    filled = ((n_electrons + 1) // 2 - n_levels).unsqueeze(1) + steps
    own = torch.cat([filled, (n_electrons // 2).unsqueeze(1) + steps], dim=1)
    if torch.is_grad_enabled():
        levels = _expected(matrices, own)
    else:
        levels = torch.linalg.eigvalsh(_hermitian(matrices)).gather(1, own)
    return levels


def _expected(matrices: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Own levels of Hermitian parts with constant eigenvectors, both (n_matrices, 2 n_levels)."""
    degenerate = 1e-6  # closer levels, in eV, count as one
    with torch.no_grad():
        levels, vectors = torch.linalg.eigh(_hermitian(matrices))
        mine = levels.gather(1, own)
        lowest, highest = mine[:, :1] - degenerate, mine[:, -1:] + degenerate
        near = ((levels > lowest) & (levels < highest)).any(0)  # in one of the matrices
        vectors = vectors[:, :, near]
        alike = (mine.unsqueeze(2) - levels[:, near].unsqueeze(1)).abs() < degenerate
        share = alike.to(levels.dtype) / alike.sum(2, keepdim=True)
    expectation = (vectors.conj() * (matrices @ vectors)).sum(1).real
    mean = (share @ expectation.unsqueeze(2)).squeeze(2)
    return mine + (mean - mean.detach())
