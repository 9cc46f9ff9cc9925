"""An output module for a band gap and band edges that are consistent."""

import math
from collections.abc import Callable

import schnetpack.nn as snn
import torch
import torch.nn.functional as F
from schnetpack import properties as structure_keys
from schnetpack.data import AtomsDataModule
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import Transform
from torch import nn

from schnetpack_phonon.common import properties
from schnetpack_phonon.data.statistics import training_labels
from schnetpack_phonon.models.heads import (
    check_features,
    check_gap,
    check_unit,
    mean_over_atoms,
    opened,
    precise,
    scalar_features,
)


class BandEdges(Transform):
    r"""Band gap, valence band maximum and conduction band minimum in eV, from levels of atoms.

    Atom i has a valence level :math:`v_i` and a conduction level :math:`c_i`. The band edges are a
    smooth maximum and a smooth minimum over the N atoms,

    .. math::
        V = \frac{1}{\beta_v} \ln \frac{1}{N} \sum_i e^{\beta_v v_i}, \qquad
        C = -\frac{1}{\beta_c} \ln \frac{1}{N} \sum_i e^{-\beta_c c_i}.

    Their sharpness is learned: the mean for a small :math:`\beta`, the outermost level for a large
    one. The logarithm is of a mean, not of a sum as in other smooth maxima, so that a supercell has
    the band edges of its cell. The share of an atom in a band edge is
    :math:`\partial V / \partial v_i`: shares are positive and add up to 1.

    Where V is above C the crystal is a metal. Then the gap is zero and both band edges are the
    middle of the overlap, as in the labels (:func:`.labels_from_results`); :func:`.opened` joins
    the two cases.

    Labels of any of the three properties train it, of all structures or of some. Offsets and
    scales are those of :func:`edge_fit`.

    Args:
        n_in: number of scalar features.
        n_hidden: width of the hidden layers; halved from layer to layer by default.
        n_layers: of the networks that give the levels, one for each band edge.
        activation: between the layers.
        band_gap_key: gap in the database and in the model's output, shape=(n_structures,).
        vbm_key: the same for the valence band maximum.
        cbm_key: the same for the conduction band minimum.
        levels_key: if given, a further output: valence and conduction level of each atom in eV,
            shape=(n_atoms, 2).
    """

    offset: torch.Tensor
    scale: torch.Tensor
    outward: torch.Tensor

    def __init__(
        self,
        n_in: int,
        n_hidden: int | None = None,
        n_layers: int = 2,
        activation: Callable[[torch.Tensor], torch.Tensor] = F.silu,
        band_gap_key: str = properties.band_gap,
        vbm_key: str = properties.vbm,
        cbm_key: str = properties.cbm,
        levels_key: str | None = None,
    ):
        super().__init__()
        self.band_gap_key, self.vbm_key, self.cbm_key = band_gap_key, vbm_key, cbm_key
        self.levels_key = levels_key
        levels = [] if levels_key is None else [levels_key]
        self.model_outputs = [band_gap_key, vbm_key, cbm_key, *levels]
        self.valence, self.conduction = (
            snn.build_mlp(
                n_in=n_in, n_out=1, n_hidden=n_hidden, n_layers=n_layers, activation=activation
            )
            for _ in range(2)
        )
        self.log_sharpness = nn.Parameter(torch.empty(2))  # of levels in units of the scale
        self.reset_parameters()
        self.register_buffer("offset", torch.zeros(101, 2))
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("outward", torch.tensor([1.0, -1.0]))

    def reset_parameters(self) -> None:
        """Resets the sharpness; layers of the networks reset themselves.

        Band edges start near the mean of the levels: levels of N atoms vary by the square root of N
        more than their mean, which varies by the scale.
        """
        nn.init.constant_(self.log_sharpness, math.log(0.1))

    def datamodule(self, value: AtomsDataModule) -> None:
        """Takes offsets and scales from the training set; SchNetPack calls this before a fit.

        Raises:
            ValueError: as :func:`edge_fit` does.
        """
        keys = self.band_gap_key, self.vbm_key, self.cbm_key
        offset, scale = edge_fit(value, *keys, self.offset)
        self.offset, self.scale = offset.to(self.offset), scale.to(self.scale)

    def check_model(self, model: NeuralNetworkPotential) -> None:
        """Raises ValueError if a model lacks the features: :func:`.check_features`."""
        check_features(model, self.valence[0].in_features)

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        offset = precise(self.offset[inputs[structure_keys.Z]], self.training)
        offset = mean_over_atoms(offset, inputs)
        features = scalar_features(inputs, self.valence[0].in_features)
        levels = torch.cat([self.valence(features), self.conduction(features)], dim=1)
        edges = offset + self.scale * self.pooled(levels, inputs)
        inputs[self.band_gap_key], apart = closed(edges, self.training)
        edges = edges + apart
        inputs[self.vbm_key], inputs[self.cbm_key] = edges[:, 0], edges[:, 1]
        if self.levels_key is not None:
            inputs[self.levels_key] = (
                self.scale * levels + (offset + apart)[inputs[structure_keys.idx_m]]
            )
        return inputs

    def pooled(self, levels: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Band edges from levels of atoms, shape=(n_atoms, 2) -> (n_structures, 2)."""
        sharpness = self.outward * self.log_sharpness.exp()
        return _log_mean_exp(sharpness * levels, inputs) / sharpness


def closed(
    edges: torch.Tensor, training: bool, width: float = 0.05
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gap between two band edges, zero where they overlap, and what moves them to the middle.

    In a metal, errors of the band edges move the middle of the overlap. In training they also open
    the gap, by a tenth: without this, labels of both edges alone would not open it; with a larger
    pull, those of one edge alone would diverge, since levels share features.

    Args:
        edges: valence band maximum and conduction band minimum in eV, shape=(n, 2).
        training: as of a module.
        width: of the rounded corner in eV, see :func:`.opened`.

    Returns:
        The gap, shape=(n,), and what to add to the band edges, shape=(n, 2).
    """
    raw = edges[:, 1] - edges[:, 0]
    half = 0.5 * (opened(raw, 0.1 if training else 0.0, width) - raw)
    return opened(raw, 1.0 if training else 0.0, width), torch.stack([-half, half], dim=1)


def edge_fit(
    datamodule: AtomsDataModule,
    band_gap_key: str,
    vbm_key: str,
    cbm_key: str,
    start: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least-squares fit of both band edges to the composition of the training set.

    All labels of gaps and band edges are fitted together, whichever a structure has. Among equal
    fits the one whose gaps, and then band edges, are closest to ``start`` is taken: with gaps
    alone, band edges are relative to the valence band maximum.

    Args:
        datamodule: any data module of SchNetPack, after its ``setup``.
        band_gap_key: of the gap in the database; properties that are not in it have no labels.
        vbm_key: of the valence band maximum.
        cbm_key: of the conduction band minimum.
        start: offset of each element in both band edges, shape=(101, 2); zero by default.

    Returns:
        Offset of each element in both band edges, shape=(101, 2), and the standard deviation of
        the residuals, shape=(2,) (the largest of the others for a band edge without labels); both
        float64, in eV.

    Raises:
        ValueError: as :func:`edge_labels` does.
    """
    labels, shares = edge_labels(datamodule, band_gap_key, vbm_key, cbm_key)
    present = labels.isfinite()
    elements = shares.any(dim=0)
    shares = shares[:, elements]
    # The unknowns are V and 1000 (C - V), so that the norm is small in the gap before all else.
    parts = torch.tensor([[0, 1e-3], [1, 0], [1, 1e-3]], dtype=torch.float64)
    rows = [torch.kron(part, shares[own]) for part, own in zip(parts, present.T, strict=True)]
    values = [labels[own, k] for k, own in enumerate(present.T)]
    design, value = torch.cat(rows), torch.cat(values)
    offset = torch.zeros(101, 2, dtype=torch.float64) if start is None else start.double().cpu()
    below, above = offset[elements].T
    before = torch.cat([below, 1e3 * (above - below)])
    rest = value - design @ before
    solution = before + torch.linalg.lstsq(design, rest[:, None], driver="gelsd").solution[:, 0]
    left = (value - design @ solution).split([len(v) for v in values])
    deviation = [float(one.square().mean().sqrt()) if len(one) else 0.0 for one in left]
    scale = torch.tensor([one or max(deviation) for one in deviation[1:]], dtype=torch.float64)
    vbm, gap = solution.reshape(2, -1)
    offset[elements] = torch.stack([vbm, vbm + 1e-3 * gap], dim=1)
    return offset, scale.clamp(min=1e-12)


def edge_labels(
    datamodule: AtomsDataModule, band_gap_key: str, vbm_key: str, cbm_key: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gap and band edges of the training set in eV, NaN where there is no label.

    Returns:
        Labels, shape=(n_structures, 3), and the atomic fraction of each element,
        shape=(n_structures, 101); both float64.

    Raises:
        ValueError: if there are no labels, they are not in eV, or gaps are negative or differ from
            the distance of the band edges, or a valence band maximum is above its conduction band
            minimum.
    """
    keys = (band_gap_key, vbm_key, cbm_key)
    dataset, train = datamodule.dataset, datamodule.train_idx
    labels = torch.full((len(train), 3), math.nan, dtype=torch.float64)
    for k, key in enumerate(keys):
        if key in dataset.available_properties:
            check_unit(datamodule, key)
            labels[:, k], shares = training_labels(datamodule, key)
    present = labels.isfinite()
    if not present.any():
        raise ValueError(
            f"no training structure in {dataset.datapath} has a label {band_gap_key!r}, "
            f"{vbm_key!r} or {cbm_key!r}; there are {', '.join(dataset.available_properties)}"
        )
    if present[:, 0].any():
        check_gap(datamodule, band_gap_key)
    for k in torch.nonzero(labels[:, 1] - labels[:, 2] > 1e-3)[:1, 0]:
        raise ValueError(
            f"{vbm_key!r} of structure {train[k]} in {dataset.datapath} is {labels[k, 1]:.3f} eV, "
            f"above {cbm_key!r}, {labels[k, 2]:.3f} eV; expected no gap, or a positive one: label "
            "metals with a gap of 0 and both edges in the middle of the overlap"
        )
    mismatch = labels[:, 2] - labels[:, 1] - labels[:, 0]
    for k in torch.nonzero(mismatch.abs() > 1e-3)[:1, 0]:
        raise ValueError(
            f"{cbm_key!r} - {vbm_key!r} differs from {band_gap_key!r} by {mismatch[k]:.3g} eV in "
            f"structure {train[k]} of {dataset.datapath}; expected the gap between both edges: "
            "use one head for each method that computed labels"
        )
    return labels, shares


def _log_mean_exp(x: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Over the atoms of each structure, shape=(n_atoms, k) -> (n_structures, k)."""
    idx_m, n = inputs[structure_keys.idx_m], inputs[structure_keys.n_atoms].shape[0]
    lowest = torch.full((n, x.shape[1]), -math.inf, dtype=x.dtype, device=x.device)
    index = idx_m.unsqueeze(-1).expand_as(x)
    highest = lowest.scatter_reduce(0, index, x.detach(), "amax")
    return highest + mean_over_atoms((x - highest[idx_m]).exp(), inputs).log()
