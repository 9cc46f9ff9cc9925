"""Which bonds carry a predicted property: integrated gradients from ideal to thermal crystal.

The change of a prediction between the ideal and the displaced crystal, f(R) - f(R0), is split
over bonds by integrating the gradient with respect to each edge vector along the straight path
between the two (integrated gradients: Sundararajan, Taly, Yan, ICML 2017; Captum's
implementation). The sum over bonds is the whole change, up to the quadrature error, which is
reported. Terms of a model outside its representation (a ZBL repulsion, say) are not seen.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.data import chemical_symbols
from captum.attr import IntegratedGradients
from matscipy.neighbours import neighbour_list
from schnetpack import properties as structure_keys
from schnetpack.model import NeuralNetworkPotential
from torch import nn


@dataclass(frozen=True)
class BondAttribution:
    """Attribution of one structure's change of a property to its bonds.

    Every bond appears as two directed edges; their attributions belong together.

    Attributes:
        output_key: the model's output that is attributed.
        numbers: atomic numbers, shape=(n_atoms,).
        idx_i: first atom of each edge, shape=(n_edges,).
        idx_j: second atom of each edge, shape=(n_edges,).
        image: lattice image of the second atom, integers, shape=(n_edges, 3).
        ideal_distance: in Ang, shape=(n_edges,).
        distance: in Ang, shape=(n_edges,).
        attribution: share of the change of the property, in its unit, shape=(n_edges,).
        ideal_value: prediction for the ideal crystal.
        value: prediction for the displaced crystal.
    """

    output_key: str
    numbers: np.ndarray
    idx_i: np.ndarray
    idx_j: np.ndarray
    image: np.ndarray
    ideal_distance: np.ndarray
    distance: np.ndarray
    attribution: np.ndarray
    ideal_value: float
    value: float

    @property
    def change(self) -> float:
        """f(displaced) - f(ideal)."""
        return self.value - self.ideal_value

    @property
    def residual(self) -> float:
        """What the bonds miss of the change: quadrature error."""
        return float(self.change - self.attribution.sum())

    @property
    def bond_types(self) -> np.ndarray:
        """Species pair of each edge, such as ``Ag-S``, shape=(n_edges,)."""
        return bond_types(self.numbers[self.idx_i], self.numbers[self.idx_j])

    def by_type(self) -> pd.Series:
        """Sum over the bonds of each type, in the unit of the property."""
        return pd.Series(self.attribution).groupby(self.bond_types).sum()


def bond_types(numbers_i: np.ndarray, numbers_j: np.ndarray) -> np.ndarray:
    """Species pairs in alphabetical order, such as ``Ag-S``."""
    symbols = np.array(chemical_symbols)
    pair = np.sort(np.stack([symbols[numbers_i], symbols[numbers_j]]), axis=0)
    return np.char.add(np.char.add(pair[0], "-"), pair[1])


def path_edges(
    ideal: Atoms, displaced: Atoms, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges that come within the cutoff anywhere on the straight path from ideal to displaced.

    Args:
        ideal: reference structure.
        displaced: same atoms in the same order, not wrapped back into the cell.
        cutoff: in Ang.

    Returns:
        idx_i and idx_j, shape=(n_edges,), and the lattice image of j, shape=(n_edges, 3).
    """
    # R(u) = R0 (1 + u e) + u (m_j - m_i), so |R(u)| >= |R0| (1 - |e|) - 2 max|m|.
    strain = np.linalg.solve(ideal.cell.array, displaced.cell.array) - np.eye(3)
    move = displaced.positions - ideal.positions @ (np.eye(3) + strain)
    reach = cutoff + 2 * np.linalg.norm(move, axis=1).max()
    i, j, image = neighbour_list("ijS", ideal, reach / (1 - np.linalg.norm(strain, 2)))
    start = edge_vectors(ideal, i, j, image)
    step = edge_vectors(displaced, i, j, image) - start
    length = (step**2).sum(axis=1)
    nearest = np.clip(-(start * step).sum(axis=1) / np.where(length > 0, length, 1.0), 0.0, 1.0)
    shortest = np.linalg.norm(start + nearest[:, None] * step, axis=1)
    inside = shortest < cutoff
    return i[inside], j[inside], image[inside]


def edge_vectors(atoms: Atoms, i: np.ndarray, j: np.ndarray, image: np.ndarray) -> np.ndarray:
    """R_j + S cell - R_i in Ang, shape=(n_edges, 3)."""
    return atoms.positions[j] + image @ atoms.cell.array - atoms.positions[i]


def attribute_displacement(
    model: NeuralNetworkPotential,
    ideal: Atoms,
    displaced: Atoms,
    output_key: str,
    n_steps: int = 16,
) -> BondAttribution:
    """Splits f(displaced) - f(ideal) over bonds.

    Args:
        model: with a representation that has a ``cutoff`` and reads edge vectors (all of
            SchNetPack's); left as it was found.
        ideal: reference crystal.
        displaced: same atoms in the same order, not wrapped back into the cell.
        output_key: scalar output of the model.
        n_steps: nodes of the Gauss-Legendre quadrature.

    Raises:
        ValueError: if the model has no such scalar output or the atoms differ.
    """
    if not np.array_equal(ideal.numbers, displaced.numbers):
        raise ValueError("ideal and displaced crystal have different atoms")
    if output_key not in (model.model_outputs or []):
        raise ValueError(f"the model has no output {output_key!r}; it has {model.model_outputs}")
    cutoff = float(model.representation.cutoff)
    i, j, image = path_edges(ideal, displaced, cutoff)
    edges = _Edges(model, displaced, i, j, output_key)
    r0, r1 = (edges.tensor(edge_vectors(atoms, i, j, image)) for atoms in (ideal, displaced))
    with edges:
        ends = edges(torch.cat([r0, r1])).detach().double().cpu()
        # Captum's default internal batch is all nodes at once: one forward, one backward.
        attribution = IntegratedGradients(edges).attribute(
            r1, baselines=r0, n_steps=n_steps, method="gausslegendre"
        )
    return BondAttribution(
        output_key=output_key,
        numbers=ideal.numbers,
        idx_i=i,
        idx_j=j,
        image=image,
        ideal_distance=r0.norm(dim=1).cpu().numpy(),
        distance=r1.norm(dim=1).cpu().numpy(),
        attribution=attribution.sum(dim=1).detach().double().cpu().numpy(),
        ideal_value=float(ends[0]),
        value=float(ends[1]),
    )


class _Edges:
    """A model as a function of edge vectors, for any number of copies of one graph.

    The representation's input is replaced by a forward pre-hook, so that the model itself is
    called as it stands. Within the context the model is in evaluation mode and its parameters
    are frozen; both are restored.
    """

    def __init__(
        self,
        model: NeuralNetworkPotential,
        atoms: Atoms,
        i: np.ndarray,
        j: np.ndarray,
        output_key: str,
    ):
        # Response modules (forces, stress) ask for derivatives with respect to positions and free
        # the graph: work on a view of the model, which shares its weights, without them.
        self.model, self.output_key = copy.copy(model), output_key
        self.model._modules = dict(model._modules)
        self.model.output_modules = nn.ModuleList(
            m for m in model.output_modules if not getattr(m, "required_derivatives", None)
        )
        self.model.required_derivatives, self.model.model_outputs = [], [output_key]
        self.reference = next(model.parameters())
        self.i, self.j = (torch.as_tensor(x, dtype=torch.long) for x in (i, j))
        self.numbers = torch.as_tensor(atoms.numbers, dtype=torch.long)
        self.positions = self.tensor(atoms.positions).cpu()
        self.cell = self.tensor(atoms.cell.array)[None].cpu()

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=self.reference.dtype, device=self.reference.device)

    def __enter__(self) -> _Edges:
        self._training = [m for m in self.model.modules() if m.training]
        self._frozen = [p for p in self.model.parameters() if p.requires_grad]
        self._grad = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        self.model.eval()
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        return self

    def __exit__(self, *_: object) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        for module in self._training:
            module.training = True
        torch.set_grad_enabled(self._grad)

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """Property of each copy, shape=(n_copies,), for edges of shape=(n_copies n_edges, 3)."""
        copies, n = len(vectors) // max(len(self.i), 1), len(self.numbers)
        shift = n * torch.arange(copies)[:, None]
        # R is only a placeholder; Rij is what counts.
        batch = {
            structure_keys.Z: self.numbers.repeat(copies),
            structure_keys.R: self.positions.repeat(copies, 1),
            structure_keys.cell: self.cell.repeat(copies, 1, 1),
            structure_keys.pbc: torch.ones(3 * copies, dtype=torch.bool),
            structure_keys.n_atoms: torch.full((copies,), n),
            structure_keys.idx_m: torch.arange(copies).repeat_interleave(n),
            structure_keys.idx_i: (self.i + shift).reshape(-1),
            structure_keys.idx_j: (self.j + shift).reshape(-1),
            structure_keys.offsets: torch.zeros(len(vectors), 3, dtype=vectors.dtype),
        }
        batch = {key: value.to(vectors.device) for key, value in batch.items()}

        def replace(_module: nn.Module, arguments: tuple) -> None:
            arguments[0][structure_keys.Rij] = vectors

        handle = self.model.representation.register_forward_pre_hook(replace)
        try:
            return self.model(batch)[self.output_key]
        finally:
            handle.remove()


def untrained(model: NeuralNetworkPotential, seed: int) -> NeuralNetworkPotential:
    """A copy of the model with fresh weights: the control for what training taught.

    Offsets and scales of the heads (buffers) are kept. A module that has parameters of its own and
    cannot reset them keeps them too, with a warning.
    """
    fresh = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in fresh.named_modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif next(module.parameters(recurse=False), None) is not None:
                warnings.warn(f"the untrained control keeps the trained {name}", stacklevel=2)
    return fresh


def variance_shares(
    attributions: list[BondAttribution], n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Share of each bond type in the variance of the change, Cov(A_t, df) / Var(df).

    Shares add up to 1 (to the completeness of the attributions). The interval is the central
    95 % of a bootstrap over structures.

    Args:
        attributions: of structures of one crystal.
        n_bootstrap: resamplings.
        seed: of the resampling.

    Returns:
        One row a bond type: ``share``, ``low``, ``high``. Empty if there are fewer than three
        structures or the property does not change, where shares mean nothing.
    """
    table = pd.DataFrame([a.by_type() for a in attributions]).fillna(0.0)
    change = np.array([a.change for a in attributions])
    if len(change) < 3 or change.std() <= 1e-6 * max(abs(a.value) for a in attributions):
        return pd.DataFrame(columns=["share", "low", "high"])

    def shares(pick: np.ndarray) -> np.ndarray:
        df = change[pick] - change[pick].mean()
        return (table.to_numpy()[pick] * df[:, None]).sum(axis=0) / (df**2).sum()

    rng = np.random.default_rng(np.random.SeedSequence(seed))
    n = len(change)
    resampled = [rng.integers(0, n, n) for _ in range(n_bootstrap)]
    samples = np.array([shares(pick) for pick in resampled if np.ptp(change[pick]) > 0])
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    return pd.DataFrame(
        {"share": shares(np.arange(n)), "low": low, "high": high}, index=table.columns
    )
