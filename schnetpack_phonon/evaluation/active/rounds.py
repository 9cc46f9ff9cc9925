"""Errors of a potential on the structures that its own dynamics found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from ase.units import GPa

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.common.properties import Labels, energy_per_atom, forces, stress
from schnetpack_phonon.data.database import Row

RECORD = "active.json"
ALL = "all"  # crystals together


@dataclass(frozen=True)
class RoundErrors:
    """Of a potential for the new structures of one crystal, or of all.

    Attributes:
        n: number of structures.
        n_replicas: from which they are.
        n_ended: of these, replicas that left what the potential knew.
        force: root of the mean squared error of a component, in meV/Ang.
        force_rms: of the labels, about zero, in meV/Ang.
        energy: mean absolute error, in meV/atom.
        stress: root of the mean squared error of a component, in GPa; None without labels of it.
    """

    n: int
    n_replicas: int
    n_ended: int
    force: float
    force_rms: float
    energy: float
    stress: float | None

    @property
    def relative(self) -> float:
        """Error of the forces over their root mean square."""
        return self.force / self.force_rms if self.force_rms else float("inf")


def errors_of_round(rows: Sequence[Row], potential: LabellingCalculator) -> dict[str, RoundErrors]:
    """Errors of each crystal and, under :data:`ALL`, of all of them.

    Args:
        rows: with labels, of one round.
        potential: in whose dynamics they were found.
    """
    pairs = [(row, potential.label(row.atoms)) for row in rows]
    names = [str(row.key_value_pairs["structure"]) for row in rows]
    groups = {name: [p for n, p in zip(names, pairs, strict=True) if n == name] for name in names}
    return {name: _errors(own) for name, own in {**groups, ALL: pairs}.items()}


def _errors(pairs: Sequence[tuple[Row, Labels]]) -> RoundErrors:
    def differences(key: str) -> np.ndarray:
        return np.concatenate([np.ravel(own[key] - row.data[key]) for row, own in pairs])

    def rms(values: np.ndarray) -> float:
        return float(np.sqrt(np.mean(values**2)))

    facts = [row.key_value_pairs for row, _ in pairs]
    replicas = {(f["structure"], f["temperature"], f["replica"]): f["md_ended"] for f in facts}
    labels = np.concatenate([np.ravel(row.data[forces]) for row, _ in pairs])
    stressed = all(stress in row.data and stress in own for row, own in pairs)
    return RoundErrors(
        n=len(pairs),
        n_replicas=len(replicas),
        n_ended=sum(replicas.values()),
        force=1e3 * rms(differences(forces)),
        force_rms=1e3 * rms(labels),
        energy=1e3 * float(np.abs(differences(energy_per_atom)).mean()),
        stress=rms(differences(stress)) / GPa if stressed else None,
    )


def write_round(
    folder: Path, number: int, n_labels: int, n_each: int, errors: Mapping[str, RoundErrors]
) -> None:
    """Keeps the errors with the run of a round.

    Args:
        folder: of the run.
        number: of the round.
        n_labels: new labels of all rounds so far.
        n_each: that each round adds.
        errors: of :func:`errors_of_round`; empty in round 0.
    """
    record = {"round": number, "n_labels": n_labels, "n_each": n_each}
    found = {name: asdict(own) for name, own in errors.items()}
    relative = errors[ALL].relative if errors else None
    with replacing(folder / RECORD) as part:
        part.write_text(json.dumps({**record, "relative": relative, "errors": found}, indent=1))


def read_rounds(folder: Path) -> dict[int, dict[str, RoundErrors]]:
    """Errors by round, of all rounds below a folder but the first, which has none.

    Values are those of the potential of the round before.
    """
    records = [json.loads(file.read_text()) for file in folder.glob(f"*/{RECORD}")]
    return {
        record["round"]: {name: RoundErrors(**own) for name, own in record["errors"].items()}
        for record in sorted(records, key=lambda one: one["round"])
        if record["errors"]
    }
