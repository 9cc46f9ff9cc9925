"""Levels of a structure at any wave vector: bands along a path, density of states, Fermi level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.dft.kpoints import BandPath
from ase.spectrum.band_structure import BandStructure
from ase.spectrum.dosdata import GridDOSData
from schnetpack import properties as structure_keys
from torch import nn

from schnetpack_phonon.common.errors import check_positive
from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.hamiltonian.levels import band_edges, eigenvalues, kpoint_meshes
from schnetpack_phonon.models.hamiltonian.matrix import MatrixElements

_DENSITY = 30.0  # points of a path a 1/Ang
_FINE = 5  # energies of a density of states a width


@dataclass(frozen=True)
class Levels:
    """Levels of one structure, of a learned Hamiltonian.

    Energies are in eV, relative to the zero of the model's ``vbm`` and ``cbm``, which is that of
    the labels that it was trained on. Each level holds two electrons.

    Attributes:
        atoms: the structure.
        n_electrons: in the levels.
        elements: of its matrix, in eV.
        zero: that is added to the levels of this matrix.
        mesh_length: in Ang, of the mesh of wave vectors (:func:`.kpoint_meshes`) for density of
            states and Fermi level.
    """

    atoms: Atoms
    n_electrons: int
    elements: MatrixElements
    zero: float
    mesh_length: float

    def at(self, kpoints: np.ndarray) -> np.ndarray:
        """Levels in ascending order.

        Args:
            kpoints: in units of the reciprocal cell, shape=(n_kpoints, 3).

        Returns:
            shape=(n_kpoints, n_orbitals).
        """
        k = torch.as_tensor(np.reshape(kpoints, (-1, 3)), device=self.elements.values.device)
        return eigenvalues(self.elements, k).cpu().numpy() + self.zero

    def bands(self, path: str | None = None) -> BandStructure:
        """Bands along a path, in ASE's form; their ``reference`` is the Fermi level.

        Args:
            path: names of special points as ASE takes them, such as ``GXMGR``; by default the
                standard one of the lattice, in the directions that are periodic. A molecule has
                Gamma alone.

        Raises:
            ValueError: if the lattice has no such points.
        """
        points = _path(self.atoms, path)
        return BandStructure(points, self.at(points.kpts)[None], reference=self.fermi_level)

    def density_of_states(self, width: float = 0.1) -> GridDOSData:
        """States per eV and cell of both spins, in ASE's form.

        Args:
            width: in eV; standard deviation of the Gaussian that stands for a level.
        """
        check_positive("eV", width=width)
        _, weights, energies = self.mesh
        grid = np.arange(energies.min() - 6 * width, energies.max() + 6 * width, width / _FINE)
        states = np.zeros_like(grid)
        for weight, own in zip(weights, energies, strict=True):
            states += weight * np.exp(-0.5 * ((grid[:, None] - own) / width) ** 2).sum(axis=1)
        return GridDOSData(grid, 2 / (np.sqrt(2 * np.pi) * width) * states)

    @cached_property
    def mesh(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Wave vectors, their weights with a sum of 1, and the levels, shape=(n_kpoints, ...)."""
        inputs = {
            structure_keys.cell: torch.tensor(self.atoms.cell.array[None]),
            structure_keys.pbc: torch.tensor(self.atoms.pbc[None]),
        }
        kpoints = kpoint_meshes(inputs, self.mesh_length)[0].numpy()
        # Half a mesh: those that are not their own inverse stand for two.
        alone = np.abs(2 * kpoints - np.round(2 * kpoints)).max(axis=1) < 1e-9
        weights = np.where(alone, 1.0, 2.0)
        return kpoints, weights / weights.sum(), self.at(kpoints)

    @cached_property
    def fermi_level(self) -> float:
        """Highest filled level of the mesh; the middle of the gap if there is one."""
        _, weights, energies = self.mesh
        order = energies.ravel().argsort()
        levels = energies.ravel()[order]
        filled = np.repeat(weights, energies.shape[1])[order].cumsum()
        last = int(np.searchsorted(filled, self.n_electrons / 2 - 1e-9))
        full = abs(filled[last] - self.n_electrons / 2) < 1e-9
        return float((levels[last] + levels[last + full]) / 2)


def hamiltonian_of(model: nn.Module) -> HamiltonianEdges:
    """The output module with a learned Hamiltonian.

    Raises:
        ValueError: if the model has none, or several.
    """
    found = [module for module in model.modules() if isinstance(module, HamiltonianEdges)]
    if len(found) != 1:
        outputs = ", ".join(sorted(getattr(model, "model_outputs", None) or ["nothing"]))
        raise ValueError(
            f"the model, which predicts {outputs}, has {len(found) or 'no'} learned Hamiltonian"
            f"{'s' * (len(found) > 1)}; bands need one: train with the output module "
            "HamiltonianEdges (experiment=phonon_hamiltonian)"
        )
    return found[0]


@contextmanager
def recorded(head: HamiltonianEdges) -> Iterator[dict[str, Any]]:
    """Keeps the last inputs and matrix ``elements`` of a Hamiltonian, without gradients."""
    found: dict[str, Any] = {}

    def keep(module: nn.Module, arguments: tuple[Any, ...], elements: MatrixElements) -> None:
        detached = elements._replace(values=elements.values.detach().double())
        found.update(inputs=dict(arguments[0]), elements=detached)

    handle = head.hamiltonian.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def levels_of(
    head: HamiltonianEdges,
    atoms: Atoms,
    found: Mapping[str, Any],
    predicted: Mapping[str, np.ndarray],
    mesh_length: float,
) -> Levels:
    """Levels of a structure whose Hamiltonian was :func:`recorded`.

    Args:
        head: of the model.
        atoms: the structure.
        found: what was recorded.
        predicted: by the model for the structure.
        mesh_length: see :class:`Levels`.
    """
    check_positive("Ang", mesh_length=mesh_length)
    elements: MatrixElements = found["elements"]
    n_electrons = head.hamiltonian.n_electrons(found["inputs"])
    own = band_edges(elements, n_electrons, kpoint_meshes(found["inputs"], head.kpoint_length))
    # Whatever the model adds to the levels, it adds to both edges.
    edges = float(predicted[head.vbm_key]), float(predicted[head.cbm_key])
    zero = sum(edges) / 2 - float(own.mean())
    return Levels(atoms.copy(), int(n_electrons[0]), elements, zero, mesh_length)


def _path(atoms: Atoms, path: str | None) -> BandPath:
    if not atoms.pbc.any():
        if path not in (None, "G"):
            raise ValueError(f"the path is {path}; a structure without periodicity has G alone")
        return BandPath(atoms.cell, np.zeros((1, 3)), {"G": [0, 0, 0]}, "G")
    try:
        return atoms.cell.bandpath(path, density=_DENSITY, pbc=atoms.pbc)
    except (KeyError, ValueError, RuntimeError) as error:
        known = ", ".join(atoms.cell.bandpath(npoints=0, pbc=atoms.pbc).special_points)
        raise ValueError(
            f"the path is {path}; expected a sequence of {known}, such as "
            f"{atoms.cell.bandpath(npoints=0, pbc=atoms.pbc).path}"
        ) from error
