"""Errors of rounds from known differences."""

import numpy as np
import pytest
from ase.build import bulk
from ase.units import GPa

from schnetpack_phonon.data.database import Row
from schnetpack_phonon.evaluation.active.rounds import (
    ALL,
    errors_of_round,
    read_rounds,
    write_round,
)


class Shifted:
    """Labels of a row with a known error in each."""

    def __init__(self, rows, force, energy, stress):
        self.labels = [
            {
                "forces": row.data["forces"] + force,
                "energy_per_atom": row.data["energy_per_atom"] + energy,
                "stress": row.data["stress"] + stress * GPa,
            }
            for row in rows
        ]

    def label(self, atoms):
        return self.labels[atoms.info["k"]]


@pytest.fixture
def rows():
    found = []
    for k, (name, replica, ended) in enumerate([("Cu", 0, 1), ("Cu", 0, 1), ("Cu", 1, 0)]):
        atoms = bulk(name, cubic=True)
        atoms.info["k"] = k
        data = {
            "forces": np.full((4, 3), 0.5),
            "energy_per_atom": np.array([-1.0]),
            "stress": np.zeros((1, 3, 3)),
        }
        facts = {"structure": name, "temperature": 300.0, "replica": replica, "md_ended": ended}
        found.append(Row(atoms, data, facts))
    return found


def test_errors(rows, tmp_path):
    errors = errors_of_round(rows, Shifted(rows, 0.05, -0.002, 0.3))
    assert [*errors] == ["Cu", ALL]
    own = errors[ALL]
    assert own.force == pytest.approx(50)
    assert own.force_rms == pytest.approx(500)
    assert own.relative == pytest.approx(0.1)
    assert own.energy == pytest.approx(2)
    assert own.stress == pytest.approx(0.3)
    assert (own.n, own.n_replicas, own.n_ended) == (3, 2, 1)
    for number in (0, 1):
        (tmp_path / f"round_{number}").mkdir()
        found = errors if number else {}
        write_round(tmp_path / f"round_{number}", number, 3 * number, 3, found)
    assert read_rounds(tmp_path) == {1: errors}


def test_labels_without_stress(rows):
    potential = Shifted(rows, 0, 0, 0)
    for labels in potential.labels:
        del labels["stress"]
    assert errors_of_round(rows, potential)[ALL].stress is None
