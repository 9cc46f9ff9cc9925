"""SevenNet, a pretrained potential for most elements; its weights come with its package."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError
from os.path import isfile
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator

from schnetpack_phonon.calculators.base import (
    FORCE_LABELS,
    content_digest,
    labels_from_results,
    package_version,
    refuse_moments,
)
from schnetpack_phonon.common.errors import UnavailableError
from schnetpack_phonon.common.executors import call_within
from schnetpack_phonon.common.properties import Labels, element_names

WITH_PACKAGE = ("7net-0", "7net-l3i5")  #: models whose weights come with the package


@dataclass(eq=False)
class SevenNet:
    """SevenNet: energy, forces and stress of crystals of most elements, learned from PBE.

    Args:
        model: one of :data:`WITH_PACKAGE`, or the file of a fine-tuned model, which is a pickle and
            can run any program; its content identifies the labels.
        device: on which it runs.
        time_limit: for one calculation, in seconds; no limit by default.

    References:
        Park, Kim, Hwang, Han, J. Chem. Theory Comput. 20, 4857 (2024).
    """

    model: str = WITH_PACKAGE[0]
    device: str = "cpu"
    time_limit: float | None = None

    properties = FORCE_LABELS

    def __post_init__(self) -> None:
        if self.model not in WITH_PACKAGE and not isfile(self.model):
            raise ValueError(
                f"the model of SevenNet is {self.model!r}; expected {' or '.join(WITH_PACKAGE)}, "
                "whose weights come with the package, or a file that is there"
            )

    @property
    def settings(self) -> dict[str, Any]:
        own = self.model
        if own not in WITH_PACKAGE:
            own = f"file {content_digest(own)}"
        return {"code": "SevenNet", "model": own}

    @property
    def code_version(self) -> str:
        try:
            return f"sevenn {package_version('sevenn')}"
        except PackageNotFoundError as error:
            raise UnavailableError(
                'SevenNet is not installed: pip install "schnetpack_phonon[sevennet]", or use '
                "another data/calculator"
            ) from error

    def check(self, atoms: Atoms) -> None:
        """Raises UnavailableError without the package, ValueError for elements it does not know."""
        refuse_moments(atoms, "SevenNet")
        known = {*self._loaded.type_map}
        if unknown := {*atoms.numbers.tolist()} - known:
            raise ValueError(
                f"{atoms.get_chemical_formula()} holds {element_names(unknown)}, which SevenNet "
                f"({self.model}) was not trained on; it knows {len(known)} elements: use another "
                "calculator"
            )

    def ase_calculator(self) -> Calculator:
        own = copy.copy(self._loaded)  # shares the network
        own.reset()
        return own

    def label(self, atoms: Atoms) -> Labels:
        return call_within(self.time_limit, self._label, atoms)

    def _label(self, atoms: Atoms) -> Labels:
        calculator = self.ase_calculator()
        calculator.calculate(atoms)
        return labels_from_results(atoms, calculator.results)

    @property
    def _loaded(self) -> Any:
        _ = self.code_version
        content = None if self.model in WITH_PACKAGE else content_digest(self.model)
        return _loaded(self.model, content, self.device)


@cache
def _loaded(model: str, content: str | None, device: str) -> Calculator:
    """Loaded once in a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of optional accelerators, and old names of PyTorch
        from sevenn.calculator import SevenNetCalculator

        return SevenNetCalculator(model, device=device)
