"""A trained model as a calculator: for relaxation, force constants, dynamics and labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator

from schnetpack_phonon.calculators.base import (
    EDGE_LABELS,
    FORCE_LABELS,
    content_digest,
    labels_from_results,
    package_version,
    refuse_moments,
)
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.common.properties import (
    Labels,
    band_gap,
    energy,
    energy_per_atom,
    hydrostatic_stress,
    stress,
)
from schnetpack_phonon.models.predict import ModelCalculator, Predictor, ase_results
from schnetpack_phonon.models.trained.weights import stored_model


@dataclass(eq=False)
class TrainedModel:
    """A trained model as the calculator of a database.

    Labels are what the model predicts of energy, forces, stress, band gap and band edges. They are
    identified by the content of its file and the versions of the packages, not by its path.

    Args:
        path: run folder, or its ``best_model``.
        device: on which the model runs.
        trust: opens the pickle of a run without ``best_model.npz``, which can run any program.
        work_dir: folder in which a relative path starts.
    """

    path: str
    device: str = "cpu"
    trust: bool = False
    work_dir: str = "."

    @property
    def properties(self) -> tuple[str, ...]:
        found = {*self._predictor.outputs}
        if found & {energy, energy_per_atom}:
            found |= {energy, energy_per_atom}
        if stress in found:
            found.add(hydrostatic_stress)
        if found.issuperset(EDGE_LABELS[1:]):
            found.add(band_gap)
        else:
            found -= {*EDGE_LABELS[1:]}  # one edge alone belongs to no gap
        return tuple(key for key in (*FORCE_LABELS, *EDGE_LABELS) if key in found)

    @property
    def settings(self) -> dict[str, Any]:
        file = self._file
        if not file.is_file():
            self._predictor  # noqa: B018  says what is missing
        return {"code": "trained model", "weights": content_digest(file)}

    @property
    def code_version(self) -> str:
        return ", ".join(f"{name} {package_version(name)}" for name in _PACKAGES)

    def check(self, atoms: Atoms) -> None:
        """Raises ValueError for elements that the model was not trained on."""
        refuse_moments(atoms, f"the model {self.path}")
        self._predictor.check(atoms)

    def ase_calculator(self) -> Calculator:
        return ModelCalculator(self._predictor)

    def label(self, atoms: Atoms) -> Labels:
        (found,) = self._predictor([atoms])
        return labels_from_results(atoms, ase_results(found, len(atoms)))

    @property
    def folder(self) -> Path:
        """The path with the folder in which a relative one starts."""
        return Path(self.work_dir, self.path)

    @property
    def _file(self) -> Path:
        return stored_model(self.folder)

    @property
    def _predictor(self) -> Predictor:
        file = self._file
        digest = content_digest(file) if file.is_file() else None
        return _opened(file, digest, self.device, self.trust)


def model_of_round(number: int, path: str, **options: Any) -> TrainedModel:
    """The potential that a round of active learning has trained.

    Args:
        number: of the round.
        path: of its run, in which ``{}`` stands for the number.
        options: of :class:`TrainedModel`.
    """
    return TrainedModel(path.format(number), **options)


_PACKAGES = ("schnetpack_phonon", "schnetpack")


@cache
def _opened(file: Path, digest: str | None, device: str, trust: bool) -> Predictor:
    """Opened once in a process."""
    return Predictor(file, device, trust=Trust(everything=trust))
