"""Elastic tensors as labels, from finite differences of the stress of strained structures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms
from ase.units import GPa

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.properties import PROPERTIES, Labels
from schnetpack_phonon.labels.labelling import Job, Labeller, Repeated, label_job
from schnetpack_phonon.labels.relaxation import SMALL_FORCE, largest_force, relaxed_label_job
from schnetpack_phonon.labels.store import Record
from schnetpack_phonon.structures.elasticity import finite_strain_tensor, finite_strains, strained

log = logging.getLogger(__name__)
Structure: TypeAlias = tuple[str, Atoms, Labels]
_NAMES = [f"{sign}{name}" for name in ("xx", "yy", "zz", "yz", "xz", "xy") for sign in "+-"]
N_STRAINS = len(_NAMES)


class FiniteStrain:
    """Elastic tensors from twelve strained copies of each structure, with labels in the store.

    ``elastic_tensor`` (clamped-ion, see :mod:`.structures.elasticity`) is defined for any
    structure, also if forces act on its atoms; it holds at the stress of the structure.
    For ``elastic_tensor_relaxed`` (relaxed-ion) the atoms are relaxed in each strained cell; it is
    defined only for a structure at its minimum: an ideal crystal, not a thermal snapshot.

    Args:
        strain: size of each component, engineering shear for yz, xz and xy. The error from the
            noise of the code is large for much smaller strains, that from anharmonicity for much
            larger ones.
        relaxed_ions: compute ``elastic_tensor_relaxed``, too, with twelve more relaxations. Atoms
            that symmetry holds at a saddle point stay there.
    """

    def __init__(self, strain: float = 0.005, relaxed_ions: bool = False):
        if not 0 < strain <= 0.05:
            raise ValueError(f"data.elastic.strain is {strain}; expected 0 < strain <= 0.05")
        self.strain = float(strain)
        self.relaxed_ions = relaxed_ions

    @property
    def properties(self) -> tuple[str, ...]:
        """Keys of the labels."""
        relaxed = (properties.elastic_tensor_relaxed,) if self.relaxed_ions else ()
        return (properties.elastic_tensor, *relaxed)

    @property
    def settings(self) -> dict[str, Any]:
        """All options that change a tensor, as plain values."""
        return {"strain": self.strain, "relaxed_ions": self.relaxed_ions}

    def labels(
        self,
        labeller: Labeller,
        calculator: LabellingCalculator,
        structures: Iterable[Structure],
    ) -> list[Labels | None]:
        """Labels of structures with their elastic tensors, in GPa.

        Args:
            labeller: computes the labels that are not in the store yet.
            calculator: the code that computes the labels.
            structures: descriptions, atoms, and existing labels; iterated several times.

        Returns:
            Labels of each structure; None if a strained copy has no labels, or if the stresses of
            the copies are inconsistent.

        Raises:
            ValueError: if ions are to be relaxed in a structure that is not at its minimum.
        """
        if self.relaxed_ions:
            _check_minima(structures)
        strains = list(zip(_NAMES, finite_strains(self.strain).reshape(-1, 3, 3), strict=True))
        found: list[Labels | None] = [labels for _, _, labels in structures]

        def copies(make_job: Callable[..., Job]) -> Iterator[Job]:
            for description, atoms, _ in structures:
                for name, strain in strains:
                    what = f"{description}, strain {name}"
                    yield make_job(calculator, strained(atoms, strain), what)

        for key, make_job in zip(self.properties, (label_job, relaxed_label_job), strict=False):
            records = iter(labeller.run(Repeated(partial(copies, make_job)), PROPERTIES[key].label))
            for k, (description, _, _) in enumerate(structures):
                tensor = self._tensor(description, list(islice(records, len(strains))))
                labels = found[k]
                found[k] = None if labels is None or tensor is None else {**labels, key: tensor}
        return found

    def _tensor(self, description: str, records: Sequence[Record]) -> np.ndarray | None:
        """Elastic tensor of one structure from its strained copies, shape=(1, 6, 6)."""
        stresses = [r.labels[properties.stress] for r in records if r.labels is not None]
        if len(stresses) < len(records):
            return None
        array = np.reshape(stresses, (6, 2, 3, 3)) / GPa
        try:
            return finite_strain_tensor(array, self.strain)[None]
        except ValueError as error:
            log.warning("%s: %s", description, error)
            return None


def _check_minima(structures: Iterable[Structure]) -> None:
    for description, _, labels in structures:
        force = largest_force(labels)
        if force > SMALL_FORCE:
            raise ValueError(
                f"{description}: forces up to {force:.2f} eV/Ang; expected at most {SMALL_FORCE}, "
                "since a relaxed-ion elastic tensor is defined at a minimum only. Thermal "
                "snapshots have only a clamped-ion tensor: set data.elastic.relaxed_ions=false"
            )
