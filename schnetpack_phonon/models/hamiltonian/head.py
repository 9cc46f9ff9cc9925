"""An output module for gap and band edges from the levels of a learned Hamiltonian."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from ase.data import chemical_symbols
from schnetpack import properties as structure_keys
from schnetpack.atomistic import PairwiseDistances
from schnetpack.data import AtomsDataModule
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import Transform

from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import check_at_least
from schnetpack_phonon.common.properties import element_names
from schnetpack_phonon.data.statistics import fit_to_shares
from schnetpack_phonon.models.band_edges import closed, edge_labels
from schnetpack_phonon.models.cutoffs import cutoff_of
from schnetpack_phonon.models.hamiltonian.levels import (
    band_edges,
    joined,
    kpoint_meshes,
    labelled_kpoints,
    levels_at_gap,
    outermost,
)
from schnetpack_phonon.models.hamiltonian.matrix import Hamiltonian
from schnetpack_phonon.models.heads import check_features, check_unit, mean_over_atoms, precise

_N_SAMPLES = 64  # training structures from which the zero of potential is fitted


class HamiltonianEdges(Transform):
    r"""Band gap, valence band maximum and conduction band minimum in eV: levels of a matrix.

    They are eigenvalues of a :class:`.Hamiltonian`, the highest filled and the lowest empty level
    at the wave vectors of :func:`.kpoint_meshes`. With ``n_in`` the surroundings of atoms count,
    too (:class:`.Environment`); without, the representation is not used, and :class:`.NoFeatures`
    may take its place. The zero of potential, which labels take from the code that made them, is a
    mean over atoms of :math:`o_Z + s_Z \ln v` with the volume v of the crystal per atom in
    Ang\ :sup:`3`; the gap needs none.

    Where the highest filled level is above the lowest empty one the crystal is a metal: the gap is
    zero and both edges are the middle, as in :class:`.BandEdges`. So is every structure with an odd
    number of electrons. At Gamma alone, metals with an even number have the gap of this one wave
    vector.

    Labels of any of the three properties train it, of all structures or of some. With ``n_levels``
    levels below and above the gap are a further output, ``eigenvalues``, at the wave vectors
    ``kpoints`` that come with their labels, NaN where those are NaN; without labels, at the wave
    vectors of the mesh. Levels add no weights.

    Args:
        elements: symbols; only they may occur. None for those of the training set, or of the
            weights that are loaded.
        cutoff: of bonds in Ang; that of the neighbour list, or less.
        n_radial: number of radial functions of each pair of elements and each kind of bond.
        kpoint_length: of the mesh in Ang, see :func:`.kpoint_meshes`; 0 for Gamma alone, as the
            shipped labels. With a length a supercell of half the mesh has the same edges.
        orbitals: other shells, electrons or energies than those of the table: :func:`.orbitals_of`.
        n_in: number of scalar features of the representation; 0 for terms of pairs of atoms alone.
        n_levels: number of levels on either side of the gap that are an output; that of the labels.
        band_gap_key: gap in the database and in the model's output, shape=(n_structures,).
        vbm_key: the same for the valence band maximum.
        cbm_key: the same for the conduction band minimum.

    Raises:
        ValueError: as :class:`.Hamiltonian` does, and for a negative ``kpoint_length`` or
            ``n_levels``.
    """

    offset: torch.Tensor
    slope: torch.Tensor

    def __init__(
        self,
        elements: Sequence[str] | None,
        cutoff: float,
        n_radial: int = 16,
        kpoint_length: float = 0.0,
        orbitals: Mapping[str, Mapping[str, float]] | None = None,
        n_in: int = 0,
        n_levels: int = 0,
        band_gap_key: str = properties.band_gap,
        vbm_key: str = properties.vbm,
        cbm_key: str = properties.cbm,
    ):
        super().__init__()
        check_at_least(0, "Ang", kpoint_length=kpoint_length)
        check_at_least(0, n_levels=n_levels, n_in=n_in)
        self.band_gap_key, self.vbm_key, self.cbm_key = band_gap_key, vbm_key, cbm_key
        self.n_levels = n_levels
        further = [properties.levels] if n_levels else []
        self.model_outputs = [band_gap_key, vbm_key, cbm_key, *further]
        self.kpoint_length = float(kpoint_length)
        if elements is not None and not elements:
            raise ValueError("elements is empty; expected symbols, or null for the training set's")
        self._made = partial(
            Hamiltonian, cutoff=cutoff, n_radial=n_radial, orbitals=orbitals, n_in=n_in
        )
        self.hamiltonian = self._made(elements) if elements else Hamiltonian((), cutoff)
        self.register_buffer("offset", torch.zeros(101))
        self.register_buffer("slope", torch.zeros(101))

    def take_elements(self, index: torch.Tensor) -> None:
        """Makes the Hamiltonian of some elements, unless it has its own.

        Args:
            index: place of each atomic number among them, -1 for others, shape=(101,).
        """
        if not len(self.hamiltonian.start):
            known = torch.nonzero(index >= 0)[:, 0]
            order = known[index[known].argsort()].tolist()
            self.hamiltonian = self._made([chemical_symbols[z] for z in order]).to(self.offset)

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        if f"{prefix}hamiltonian.index" in state_dict:
            self.take_elements(state_dict[f"{prefix}hamiltonian.index"])
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def datamodule(self, value: AtomsDataModule) -> None:
        """Takes the zero of potential from the training set; SchNetPack calls this before a fit.

        Raises:
            ValueError: as :func:`.edge_labels` does; for elements that are none of ours, and atoms
                that overlap or have no bond, in any part; for a gap where the number of electrons
                is odd, a mesh of wave vectors where nothing is periodic, another number of levels
                than that of the labels, or levels without wave vectors.
        """
        path = value.dataset.datapath
        labels, shares = edge_labels(value, self.band_gap_key, self.vbm_key, self.cbm_key)
        self.take_elements(shares.any(dim=0).cumsum(0) * shares.any(dim=0) - 1)
        new = torch.nonzero(shares.any(dim=0).to(self.offset.device) & (self.hamiltonian.index < 0))
        if len(new):
            raise ValueError(
                f"{path} has {element_names(new[:, 0].tolist())}, for which the "
                "Hamiltonian has no orbitals: name all elements of the training set in elements"
            )
        if self.n_levels:
            check_unit(value, properties.levels)
        there = torch.nonzero(labels[:, 1:].isfinite().any(dim=1))[:, 0]
        if not len(there):  # gaps alone, which have no zero
            there = torch.arange(len(labels))
        chosen = there[torch.linspace(0, len(there) - 1, min(len(there), _N_SAMPLES)).long()]
        residuals, volumes, periodic = [], [], False
        self.hamiltonian.nearest.zero_()
        for k in range(len(labels)):
            inputs = self._inputs(value.train_dataset[k])
            if self.hamiltonian.environment is not None:  # of no effect before a fit
                shape = len(inputs[structure_keys.Z]), self.hamiltonian.environment.n_in
                inputs["scalar_representation"] = self.offset.new_zeros(shape)
            name = f"{value.train_idx[k]} of {path}"
            self._check(inputs, labels[k, 0], name)
            if self.n_levels and properties.levels in inputs:
                self._check_levels(inputs, name)
            self.hamiltonian.note_bonds(inputs)
            periodic = periodic or bool(inputs[structure_keys.pbc].any())
            if k in chosen:
                with torch.no_grad():
                    edges = self.levels(inputs)[0][0].cpu()
                residuals.append((labels[k, 1:] - edges).nanmean())
                volumes.append(_log_volume(inputs)[0].cpu())
        val, test = (value.val_dataset, value.val_idx), (value.test_dataset, value.test_idx)
        for part, numbers in (val, test):
            for k, number in enumerate(numbers):
                self._check(self._inputs(part[k]), labels.new_zeros(()), f"{number} of {path}")
        if self.kpoint_length and not periodic:
            raise ValueError(
                f"kpoint_length is {self.kpoint_length:g} Ang, but no structure of {path} is "
                "periodic; expected crystals, or kpoint_length=0 for molecules"
            )
        rest = torch.stack(residuals)[:, None]
        if rest.isfinite().all():
            own, log_volume = shares[chosen], torch.stack(volumes)[:, None]
            # Volumes of one composition tell the slope; those of different ones cannot.
            slope, _ = fit_to_shares(
                _without_means(rest, own), own * _without_means(log_volume, own)
            )
            rest = rest - log_volume * (own @ slope)
            offset, _ = fit_to_shares(rest, own, self.offset[:, None].cpu())
            self.slope, self.offset = slope[:, 0].to(self.slope), offset[:, 0].to(self.offset)

    def check_model(self, model: NeuralNetworkPotential) -> None:
        """Raises ValueError if bonds end before the cutoff or features lack, as far as is known."""
        if self.hamiltonian.environment is not None:
            check_features(model, self.hamiltonian.environment.n_in)
        try:
            known = cutoff_of(model)
        except ValueError:
            return
        if known < self.hamiltonian.cutoff - 1e-6:
            raise ValueError(
                f"the cutoff of the Hamiltonian is {self.hamiltonian.cutoff:g} Ang, that of the "
                f"representation {known:g} Ang; expected at most that: bonds beyond it may be "
                "missing"
            )

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        z = inputs[structure_keys.Z]
        log_volume = _log_volume(inputs)[inputs[structure_keys.idx_m]]
        offset = self.offset[z] + self.slope[z] * log_volume
        zero = mean_over_atoms(precise(offset.unsqueeze(-1), self.training), inputs)
        edges, levels = self.levels(inputs)
        edges = zero + edges.to(inputs[structure_keys.R].dtype)
        if self.n_levels:
            levels = levels.to(inputs[structure_keys.R].dtype)
            inputs[properties.levels] = zero.unsqueeze(2) + levels
        inputs[self.band_gap_key], apart = closed(edges, self.training, 1e-6)
        edges = edges + apart
        inputs[self.vbm_key], inputs[self.cbm_key] = edges[:, 0], edges[:, 1]
        return inputs

    def levels(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Levels of the matrix in eV, in float64.

        Returns:
            Highest filled and lowest empty level over the mesh, shape=(n_structures, 2), and levels
            next to the gap at :func:`.labelled_kpoints`, NaN where those are NaN,
            shape=(n_structures, n_kpoints, 2 n_levels), or (0,) for ``n_levels`` 0.
        """
        n_electrons = self.hamiltonian.n_electrons(inputs)
        meshes = kpoint_meshes(inputs, self.kpoint_length)
        elements = self.hamiltonian(inputs)
        if self.n_levels == 0:
            edges = band_edges(elements, n_electrons, meshes)
            return edges, edges.new_zeros(0)
        kpoints = labelled_kpoints(inputs, meshes)
        points, places = joined(meshes, kpoints)
        found = levels_at_gap(elements, n_electrons, points, self.n_levels)
        edges = outermost([found[m][: len(meshes[m])] for m in range(len(found))])
        levels = torch.stack([found[m][places[m]] for m in range(len(found))])
        there = kpoints.isfinite().all(2).unsqueeze(2)
        return edges, torch.where(there, levels, torch.full_like(levels, math.nan))

    def _inputs(self, system: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            key: each.to(self.offset if each.is_floating_point() else self.offset.device)
            for key, each in PairwiseDistances()(_atoms_collate_fn([system])).items()
        }

    def _check(self, inputs: dict[str, torch.Tensor], gap: torch.Tensor, name: str) -> None:
        distance = torch.norm(inputs[structure_keys.Rij], dim=1)
        if bool((distance < self.hamiltonian.shortest).any()):
            raise ValueError(
                f"structure {name} has atoms {distance.min():.2g} Ang apart; expected at least "
                f"{self.hamiltonian.shortest:g} Ang: look for atoms that are twice in it, a "
                "periodic direction without a vector of the cell, and another unit of lengths"
            )
        bonded = inputs[structure_keys.idx_i][distance < self.hamiltonian.cutoff].unique()
        n_atoms = int(inputs[structure_keys.n_atoms][0])
        if len(bonded) < n_atoms:
            raise ValueError(
                f"{n_atoms - len(bonded)} atoms of structure {name} have no neighbour within "
                f"{self.hamiltonian.cutoff:g} Ang, so that their levels are those of free atoms: "
                "set a larger cutoff"
            )
        n_electrons = int(self.hamiltonian.n_electrons(inputs)[0])
        if n_electrons % 2 and gap > 0:
            raise ValueError(
                f"structure {name} has {n_electrons} valence electrons and a gap of {gap:.3g} eV; "
                "expected an even number, since levels are filled in pairs: give other numbers of "
                "electrons in orbitals"
            )

    def _check_levels(self, inputs: dict[str, torch.Tensor], name: str) -> None:
        labels = inputs[properties.levels]
        if labels.shape[2] != 2 * self.n_levels:
            raise ValueError(
                f"structure {name} has {labels.shape[2] // 2} levels on either side of the gap, "
                f"the head n_levels={self.n_levels}; expected the same number: set n_levels of "
                "HamiltonianEdges to that of the labels"
            )
        if properties.kpoints not in inputs:
            raise ValueError(
                f"{properties.levels!r} are loaded without {properties.kpoints!r}, at which they "
                f"are: add {properties.kpoints} to data.load_properties"
            )
        there = inputs[properties.kpoints][..., :3].isfinite().all(dim=2)
        if bool((labels.isfinite().any(dim=2) & ~there).any()):
            raise ValueError(
                f"structure {name} has {properties.levels!r} where its {properties.kpoints!r} are "
                "NaN; expected a wave vector for each row of levels"
            )


def _log_volume(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logarithm of the volume per atom in Ang^3, zero for molecules, shape=(n_structures,)."""
    volume = torch.linalg.det(inputs[structure_keys.cell]).abs() / inputs[structure_keys.n_atoms]
    crystal = inputs[structure_keys.pbc].reshape(-1, 3).all(1)
    return torch.where(crystal & (volume > 0), volume, torch.ones_like(volume)).log()


def _without_means(values: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Less their mean over all structures of the same composition, shape=(n_structures, 1)."""
    _, kind = shares.unique(dim=0, return_inverse=True)
    total = torch.zeros(int(kind.max()) + 1, dtype=values.dtype).index_add(0, kind, values[:, 0])
    return values - (total / kind.bincount())[kind, None]
