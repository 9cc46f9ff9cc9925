"""A trained model in use: predictions for structures, and an ASE calculator.

Models are read from the weights that lie beside their pickle (``best_model.npz``). The pickle alone
is opened on demand only: it runs any code that its author put there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from schnetpack import properties as host
from schnetpack.interfaces import AtomsConverter
from schnetpack.model import AtomisticModel
from schnetpack.transform import AddOffsets, CastTo64, MatScipyNeighborList
from torch import nn

from schnetpack_phonon.common import properties
from schnetpack_phonon.common.files import UNTRUSTED, Trust
from schnetpack_phonon.common.properties import (
    DISTANCE,
    PROPERTIES,
    element_names,
    expected,
    factor,
)
from schnetpack_phonon.models.cutoffs import cutoff_of
from schnetpack_phonon.models.hamiltonian.bands import Levels, hamiltonian_of, levels_of, recorded
from schnetpack_phonon.models.trained.units import units_of
from schnetpack_phonon.models.trained.weights import load_trained
from schnetpack_phonon.structures.elasticity import tensor_to_voigt

_OF_THE_CELL = (properties.stress, properties.elastic_tensor, properties.elastic_tensor_relaxed)


class Predictor:
    """Properties of structures from a trained model.

    Args:
        model: a SchNetPack model, a run folder, or its ``best_model``.
        device: on which the model runs.
        batch_size: structures at a time.
        units: of the outputs, and of ``distance``, of a model of SchNetPack alone that was trained
            in other units and tells none: :func:`.units_of`.
        trust: what the files of the run may do, see :func:`load_trained`.
        dtype: of the arithmetic, that of the model's weights by default; for another one the model
            is copied. With ``torch.float64`` positions are not rounded to 1e-7 of their value, as
            small differences need: force constants, elastic tensors, relaxation to small forces.
            Errors of the model remain, and it takes about twice as long.

    Raises:
        ValueError: if there is no such file, no model in it, if it is not trusted, or if its units
            are not known.
    """

    def __init__(
        self,
        model: AtomisticModel | str | Path,
        device: str = "cpu",
        batch_size: int = 10,
        units: Mapping[str, str] | None = None,
        trust: Trust = UNTRUSTED,
        dtype: torch.dtype | None = None,
    ):
        run = None
        if not isinstance(model, AtomisticModel):
            run = Path(model) if Path(model).is_dir() else Path(model).parent
            model = load_trained(Path(model), trust)
        own = units_of(model, run, units)
        self._factors = {
            key: factor(own[key], expected(key))
            for key in (DISTANCE, *sorted(model.model_outputs))
            if key in own and (key == DISTANCE or key in PROPERTIES)
        }
        own_dtype = next(model.parameters()).dtype
        if dtype not in (None, own_dtype):
            model = copy.deepcopy(model).to(dtype)
        self.model = with_precise_offsets(model.to(device).eval())
        self.batch_size = batch_size
        self._elements = trained_elements(model)
        keys = (getattr(module, "bonds_key", None) for module in self.model.modules())
        self._keys_of_bonds = {str(key) for key in keys if key is not None}
        self._converter = AtomsConverter(
            MatScipyNeighborList(cutoff=cutoff_of(model)),
            device=device,
            dtype=dtype or own_dtype,
        )

    @property
    def outputs(self) -> list[str]:
        """Keys of the properties that the model predicts."""
        return sorted(self.model.model_outputs)

    @property
    def outputs_of_bonds(self) -> set[str]:
        """Those keys of predictions whose values have a row a bond."""
        ends = {"bond_i", "bond_j", "bond_vectors"} if self._keys_of_bonds else set()
        return self._keys_of_bonds | ends

    def __call__(
        self, structures: Sequence[Atoms], progress: Callable[[int], object] = lambda n: None
    ) -> list[dict[str, np.ndarray]]:
        """Predictions for each structure, in the given order.

        Shapes and units are those of :mod:`.common.properties`; an output that is not there is in
        the model's unit. A model with outputs of bonds also gives
        ``bond_i`` and ``bond_j``, the atoms of each bond, shape=(n_bonds,), and ``bond_vectors``
        from the first to the second in Ang, shape=(n_bonds, 3).

        Args:
            structures: to predict.
            progress: called with the number of structures of each batch that is finished.

        Raises:
            ValueError: as :meth:`check` does.
        """
        for atoms in structures:
            self.check(atoms)
        results: list[dict[str, np.ndarray]] = []
        for start in range(0, len(structures), self.batch_size):
            batch = [*structures[start : start + self.batch_size]]
            results += self._batch(batch)
            progress(len(batch))
        return results

    def levels(self, atoms: Atoms, mesh_length: float = 40.0) -> Levels:
        """Levels of a structure at any wave vector, of a model with a learned Hamiltonian.

        Args:
            atoms: a crystal, or periodic in fewer directions, or a molecule.
            mesh_length: in Ang, about the number of wave vectors along a direction times the length
                of the cell, for density of states and Fermi level.

        Raises:
            ValueError: if the model has no Hamiltonian, and for elements not in the training set.
        """
        head = hamiltonian_of(self.model)
        self.check(atoms)
        with recorded(head) as found:
            (values,) = self._batch([atoms])
        return levels_of(head, atoms, found, values, mesh_length)

    def _batch(self, structures: list[Atoms]) -> Iterator[dict[str, np.ndarray]]:
        inputs = self._converter([self._in_its_lengths(atoms) for atoms in structures])
        bonds = _bonds(inputs) if self._keys_of_bonds else {}
        with torch.set_grad_enabled(bool(self.model.required_derivatives)):
            values = self.model(inputs) | bonds
        if bonds:
            values["bond_vectors"] = values["bond_vectors"] * self._factors[DISTANCE]
        of_bonds = self.outputs_of_bonds
        structure = inputs[host.idx_m]
        n_bonds = structure[inputs[host.idx_i]].bincount(minlength=len(structures))
        ends, bond_ends = (n.cumsum(0)[:-1].cpu() for n in (structure.bincount(), n_bonds))
        split = {}
        for key, value in values.items():
            array = value.detach().cpu().numpy()
            if self._factors.get(key, 1.0) != 1.0:
                array = array * self._factors[key]
            known = PROPERTIES.get(key)
            of_atoms = "N" in known.shape if known else len(array) != len(structures)
            if key in of_bonds:
                split[key] = np.split(array, bond_ends)
            else:
                split[key] = np.split(array, ends) if of_atoms else array
        for k in range(len(structures)):
            own = {key: np.asarray(array[k]) for key, array in split.items()}
            if properties.levels in own:  # of the wave vectors that this structure has
                levels = own[properties.levels]
                own[properties.levels] = levels[~np.isnan(levels).all(axis=1)]
            yield own

    def _in_its_lengths(self, atoms: Atoms) -> Atoms:
        if self._factors[DISTANCE] == 1.0:
            return atoms
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell.array / self._factors[DISTANCE])
        scaled.positions /= self._factors[DISTANCE]
        return scaled

    def check(self, atoms: Atoms) -> None:
        """Checks a structure before anything is predicted.

        Raises:
            ValueError: for no atoms, positions or a cell that are not finite, elements that are not
                in the training set, and for cells that are not periodic in all directions if the
                model predicts stress or elastic tensors.
        """
        arrays = (atoms.positions, atoms.cell.array)
        if not len(atoms) or not all(np.isfinite(array).all() for array in arrays):
            raise ValueError(
                f"{atoms.get_chemical_formula() or 'a structure without atoms'}: expected atoms "
                "with finite positions and cell, not NaN"
            )
        unknown = {*atoms.numbers.tolist()} - self._elements
        if unknown and self._elements:
            raise ValueError(
                f"{atoms.get_chemical_formula()} holds {element_names(unknown)}; the model was "
                f"trained on {element_names(self._elements)}: train it on data with all elements "
                "first"
            )
        of_the_cell = [key for key in _OF_THE_CELL if key in self.outputs]
        if of_the_cell and not atoms.pbc.all():
            raise ValueError(
                f"{atoms.get_chemical_formula()} has pbc {atoms.pbc.tolist()}; the model "
                f"predicts {', '.join(of_the_cell)}, which need a crystal: set atoms.pbc = True"
            )


class ModelCalculator(Calculator):
    """A trained model as an ASE calculator.

    ``atoms.get_potential_energy()``, ``get_forces()`` and ``get_stress()`` work for a model that
    predicts ``energy`` (or ``energy_per_atom``), ``forces`` and ``stress``. All predictions are in
    ``results`` and available from ``get_property``: ``band_gap``, ``vbm``, ``cbm`` (eV),
    ``elastic_tensor`` (GPa) and so on.

    Args:
        predictor: or the model, run folder or ``best_model`` to make one from.
        units: as for :class:`Predictor`, which is then made here.
    """

    def __init__(
        self,
        predictor: Predictor | AtomisticModel | str | Path,
        units: Mapping[str, str] | None = None,
    ):
        super().__init__()
        if not isinstance(predictor, Predictor):
            predictor = Predictor(predictor, units=units)
        self.predictor = predictor
        self.implemented_properties = predictor.outputs
        if properties.energy_per_atom in predictor.outputs:
            self.implemented_properties.append(properties.energy)
        if properties.energy in self.implemented_properties:
            self.implemented_properties.append("free_energy")

    def get_property(self, name, atoms=None, allow_calculation=True):
        """As in ASE.

        Raises:
            PropertyNotImplementedError: naming what the model predicts, if ``name`` is not in it.
        """
        if name not in self.implemented_properties:
            raise PropertyNotImplementedError(
                f"the model does not predict {name!r}; it predicts "
                f"{', '.join(self.implemented_properties)}"
            )
        return super().get_property(name, atoms, allow_calculation)

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        """All properties that the model predicts, whichever are requested."""
        super().calculate(atoms, properties, system_changes)
        (found,) = self.predictor([self.atoms])
        self.results = ase_results(found, len(self.atoms))


def ase_results(found: dict[str, np.ndarray], n_atoms: int) -> dict[str, float | np.ndarray]:
    """Properties of one structure in ASE's form: stress in Voigt's order, numbers as float."""
    results: dict[str, float | np.ndarray] = {
        key: value.item() if value.ndim == 0 else value for key, value in found.items()
    }
    if properties.stress in found:
        results[properties.stress] = tensor_to_voigt(found[properties.stress])
    if properties.energy_per_atom in found and properties.energy not in found:
        results[properties.energy] = n_atoms * found[properties.energy_per_atom].item()
    if properties.energy in results:
        results["free_energy"] = results[properties.energy]
    return results


def _bonds(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Bonds of a batch: their two atoms, counted within the structure, and their vectors."""
    first, second = inputs[host.idx_i], inputs[host.idx_j]
    starts = inputs[host.n_atoms].cumsum(0) - inputs[host.n_atoms]
    start = starts[inputs[host.idx_m][first]]
    vectors = inputs[host.R][second] - inputs[host.R][first] + inputs[host.offsets]
    return {"bond_i": first - start, "bond_j": second - start, "bond_vectors": vectors}


def with_precise_offsets(model: AtomisticModel) -> AtomisticModel:
    """A model with the same weights whose ``AddOffsets`` of SchNetPack add in float64."""
    if not any(isinstance(module, AddOffsets) for module in model.postprocessors):
        return model
    result = copy.copy(model)
    result._modules = dict(model._modules)
    result.postprocessors = nn.ModuleList([CastTo64(), *model.postprocessors])
    return result


def trained_elements(model: AtomisticModel) -> set[int]:
    """Atomic numbers in the training set; empty where the model has no record of ScaledTask."""
    seen = getattr(model, "trained_elements", torch.zeros(101))
    return {*seen.nonzero()[:, 0].tolist()}
