"""Elastic tensors as second derivatives of a model's energy."""

from itertools import takewhile
from typing import Final

import torch
from ase.units import GPa
from schnetpack import properties as structure_keys
from schnetpack.atomistic import Forces, PairwiseDistances, Strain
from schnetpack.model import NeuralNetworkPotential
from torch import nn
from torch.autograd import grad

from schnetpack_phonon.common import properties
from schnetpack_phonon.models.bond_scalars import volumes
from schnetpack_phonon.models.cutoffs import check_smooth
from schnetpack_phonon.models.elastic_tensor import symmetric_part


class ElasticResponse(nn.Module):
    r"""Elastic tensors in GPa from the energy of an output module before this one.

    The clamped-ion tensor, for which atoms follow the strain :math:`\epsilon`, and on request the
    relaxed-ion tensor, for which forces stay zero under strain:

    .. math::
        V C^\mathrm{clamped}_{ab} = \frac{\partial^2 E}{\partial\epsilon_a \partial\epsilon_b},
        \qquad V C^\mathrm{relaxed} = V C^\mathrm{clamped} - \Lambda^T K^{-1} \Lambda, \qquad
        \Lambda = \frac{\partial^2 E}{\partial u \partial\epsilon}, \quad
        K = \frac{\partial^2 E}{\partial u \partial u}

    with displacements u other than translations (Schur complement of the internal strain). Both are
    those of the labels (:mod:`.structures.elasticity`) and symmetric, also under stress. The
    relaxed-ion one is that of a structure at a minimum of the *model*: relax it there first.

    Requires SchNetPack's ``Strain`` before ``PairwiseDistances``, a place before SchNetPack's
    ``Forces`` (which frees the graph), and a cutoff with two continuous derivatives;
    :meth:`check_model` says which is missing, and :func:`with_elastic_response` makes such a model
    from a trained one. The clamped-ion tensor costs 6 backward passes, the relaxed-ion one 3 more
    for each atom of the largest structure of a batch. Expect about four digits in float32.

    Args:
        relaxed_ions: compute the relaxed-ion tensor, too.
        max_force: largest force in eV/Ang at which a structure counts as a minimum.
        energy_key: total energy in eV, shape=(n_structures,).
        clamped_key: output, shape=(n_structures, 6, 6), Voigt xx yy zz yz xz xy.
        relaxed_key: the same.

    References:
        Born and Huang, Dynamical Theory of Crystal Lattices (1954), section 11; Wu, Vanderbilt,
        Hamann, Phys. Rev. B 72, 035105 (2005), equation 18.
    """

    gpa: Final[float] = float(GPa)

    def __init__(
        self,
        relaxed_ions: bool = False,
        max_force: float = 0.01,
        energy_key: str = properties.energy,
        clamped_key: str = properties.elastic_tensor,
        relaxed_key: str = properties.elastic_tensor_relaxed,
    ):
        super().__init__()
        self.relaxed_ions, self.max_force = relaxed_ions, max_force
        self.energy_key = energy_key
        self.clamped_key, self.relaxed_key = clamped_key, relaxed_key
        self.model_outputs = [clamped_key, relaxed_key] if relaxed_ions else [clamped_key]
        positions = [structure_keys.R] if relaxed_ions else []
        self.required_derivatives = [structure_keys.strain, *positions]

    def check_model(self, model: NeuralNetworkPotential) -> None:
        """Raises ValueError if a model lacks what second derivatives by strain require."""
        kinds = [type(module) for module in model.input_modules]
        if Strain not in kinds[: kinds.index(PairwiseDistances)]:
            raise ValueError(
                "ElasticResponse needs the derivative by strain: put schnetpack.atomistic.Strain "
                "before PairwiseDistances in the model's input_modules"
            )
        before = takewhile(lambda module: module is not self, model.output_modules)
        if any(isinstance(module, Forces) for module in before):
            raise ValueError(
                "Forces comes before ElasticResponse in the model's output_modules and frees the "
                "graph of the energy: put ElasticResponse before it"
            )
        check_smooth(model)

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if structure_keys.strain not in inputs:
            raise ValueError("ElasticResponse needs schnetpack.atomistic.Strain in input_modules")
        volume = volumes(inputs).unsqueeze(-1).unsqueeze(-1) * self.gpa
        energy, strain = inputs[self.energy_key], inputs[structure_keys.strain]
        positions = inputs[structure_keys.R]
        slope, gradient = self._derivatives(energy, [strain, positions], True)
        by_strain = symmetric_part(slope)
        rows = [
            symmetric_part(self._derivatives(by_strain[:, k], [strain], self.training)[0])
            for k in range(6)
        ]
        clamped = torch.stack(rows, dim=1)
        clamped = (clamped + clamped.mT) / 2
        inputs[self.clamped_key] = clamped / volume
        if self.relaxed_ions:
            if bool((gradient.abs() > self.max_force).any()):
                raise ValueError(
                    "a structure has forces above max_force; a relaxed-ion tensor is defined at a "
                    "minimum of the model's energy: relax the atoms with this model, or use the "
                    "clamped-ion tensor"
                )
            softening = self._softening(gradient, strain, positions, inputs[structure_keys.n_atoms])
            inputs[self.relaxed_key] = (clamped - softening) / volume
        return inputs

    def _derivatives(
        self, values: torch.Tensor, variables: list[torch.Tensor], create_graph: bool
    ) -> list[torch.Tensor]:
        """Derivatives of the sum of values; the graph is kept."""
        found = grad([values.sum()], variables, retain_graph=True, create_graph=create_graph)
        result: list[torch.Tensor] = []
        for each in found:
            assert each is not None  # for TorchScript
            result.append(each)
        return result

    def _softening(
        self,
        gradient: torch.Tensor,
        strain: torch.Tensor,
        positions: torch.Tensor,
        n_atoms: torch.Tensor,
    ) -> torch.Tensor:
        """Reduction of the second derivatives by strain when ions relax, shape=(n, 6, 6)."""
        ends = n_atoms.cumsum(0)
        starts = ends - n_atoms
        by_displacement: list[torch.Tensor] = []
        by_strain: list[torch.Tensor] = []
        for k in range(int(n_atoms.max())):  # the k-th atoms of all structures together
            atoms = starts[n_atoms > k] + k
            for axis in range(3):
                both = self._derivatives(gradient[atoms, axis], [positions, strain], self.training)
                by_displacement.append(both[0])
                by_strain.append(symmetric_part(both[1]))
        hessians, coupling = torch.stack(by_displacement), torch.stack(by_strain)
        result: list[torch.Tensor] = []
        for m in range(n_atoms.shape[0]):
            n = int(n_atoms[m])
            hessian = hessians[: 3 * n, int(starts[m]) : int(ends[m])].reshape(3 * n, 3 * n)
            # A stiffness for translations, which do not couple to strain.
            rigid = torch.eye(3, dtype=positions.dtype, device=positions.device).repeat(n, n) / n
            stiffness = hessian.diagonal().abs().mean()
            internal = coupling[: 3 * n, m]
            response = torch.linalg.solve((hessian + hessian.mT) / 2 + stiffness * rigid, internal)
            result.append(internal.mT @ response)
        return torch.stack(result)


def with_elastic_response(
    model: NeuralNetworkPotential, response: ElasticResponse
) -> NeuralNetworkPotential:
    """A model that predicts elastic tensors, too, with the modules (and weights) of a trained one.

    Args:
        model: of SchNetPack, with an energy among its outputs. Not changed.
        response: placed after the energy, before ``Forces``.

    Raises:
        ValueError: if the model has no energy or a cutoff that is not smooth enough.
    """
    before = list(model.input_modules)
    if not any(isinstance(module, Strain) for module in before):
        before.insert(0, Strain())
    outputs = list(model.output_modules)
    given = [response.energy_key in getattr(module, "model_outputs", []) for module in outputs]
    if True not in given:
        raise ValueError(
            f"no output module gives {response.energy_key!r}; there are "
            f"{', '.join(sorted(model.model_outputs))}: set energy_key to the model's total energy"
        )
    outputs.insert(given.index(True) + 1, response)
    result = NeuralNetworkPotential(
        model.representation,
        before,
        outputs,
        list(model.postprocessors),
        model.input_dtype_str,
        model.do_postprocessing,
    )
    if hasattr(model, "training_units"):
        result.training_units = model.training_units
    if hasattr(model, "trained_elements"):
        result.register_buffer("trained_elements", model.trained_elements)
    response.check_model(result)
    return result.train(model.training)
