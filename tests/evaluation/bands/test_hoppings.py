"""Hoppings against Harrison's, distances of bonds by hand, and warnings of unknown ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from schnetpack import properties as host

from schnetpack_phonon.common.files import UNTRUSTED
from schnetpack_phonon.common.page import Picture, Table
from schnetpack_phonon.evaluation.bands.hoppings import (
    bond_distances,
    environment_factors,
    hopping_section,
    hopping_table,
    training_bonds,
    unknown_bonds,
)
from schnetpack_phonon.models.hamiltonian.bands import recorded
from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.hamiltonian.matrix import Hamiltonian
from tests.evaluation.bands.band_fixtures import ORBITALS, STRUCTURES, write_run
from tests.models.model_fixtures import CUTOFF, batch, potential

RADII = np.array([2.0, 3.0])
CUT = 1 - 10 * (RADII / CUTOFF) ** 3 + 15 * (RADII / CUTOFF) ** 4 - 6 * (RADII / CUTOFF) ** 5


def test_pairs_of_orbitals_and_where_they_start():
    """Half of Harrison's; learned radial functions come on top, from the side of each shell."""
    hamiltonian = Hamiltonian(["Ag", "S"], CUTOFF, orbitals=ORBITALS)
    with torch.no_grad():
        hamiltonian.universal[0, 1, 1] = 0.5  # s of silver, p of sulphur
    table = hopping_table(hamiltonian, "Ag", "S", RADII)
    assert set(table["pair"]) == {"Ag-S"}
    names = ["Ag s - S s σ", "Ag s - S p σ", "S s - Ag d σ", "S p - Ag d σ", "S p - Ag d π"]
    assert list(table["orbitals"].unique()) == names
    for name, eta, change in [(names[0], -1.4, 1.0), (names[1], 1.84, 2.0), (names[2], -3.16, 1.0)]:
        rows = table[table["orbitals"] == name]
        start = 0.5 * eta * 7.62 / RADII**2 * CUT
        start *= (0.9 / RADII) ** 1.5 if "d" in name else 1
        np.testing.assert_allclose(rows["start"], start, rtol=1e-5)
        np.testing.assert_allclose(rows["trained"], change * start, rtol=1e-5)
    other = hopping_table(hamiltonian, "S", "Ag", RADII)
    assert set(other["orbitals"]) == {"S s - Ag s σ", *names[1:]}


def test_bonds_of_one_element_are_counted_once():
    table = hopping_table(Hamiltonian(["Ag", "S"], CUTOFF, orbitals=ORBITALS), "S", "S", RADII)
    names = ["S s - S s σ", "S s - S p σ", "S p - S p σ", "S p - S p π"]
    assert list(table["orbitals"].unique()) == names
    assert len(table) == len(names) * len(RADII)


def test_distances_by_hand():
    """A molecule and a chain."""
    molecule = Atoms("SAg", [[0, 0, 0], [0, 0, 2.5]])
    chain = Atoms("Ag", cell=[2.0, 9, 9], pbc=[True, False, False])
    found = bond_distances([molecule, chain], 4.5)
    assert found.keys() == {"Ag-S", "Ag-Ag"}
    np.testing.assert_allclose(np.unique(found["Ag-S"]), [2.5])
    np.testing.assert_allclose(found["Ag-Ag"], [2, 2, 4, 4])


def test_training_bonds_are_those_of_the_training_set(tmp_path):
    run = write_run(tmp_path)
    expected = bond_distances(STRUCTURES[:3], CUTOFF)
    for path in (run, run / "best_model"):
        found, note = training_bonds(path, UNTRUSTED, CUTOFF)
        assert "3 training structures" in note
        assert found.keys() == expected.keys()
        for pair, distances in found.items():
            np.testing.assert_allclose(distances, expected[pair])
    (run / "split.npz").unlink()
    found, note = training_bonds(run, UNTRUSTED, CUTOFF)
    assert not found
    assert "not known: split.npz is missing" in note


def test_bonds_that_were_not_trained_are_named():
    own = {"Ag-Ag": np.array([2.5, 3.0]), "Ag-S": np.array([2.4]), "S-S": np.array([3.0])}
    trained = {"Ag-Ag": np.array([2.6, 3.1]), "Ag-S": np.array([2.3])}
    first, second = unknown_bonds(own, trained)
    assert "Ag-Ag is as short as 2.50 Å; the shortest in training structures is 2.60 Å" in first
    assert "no training structure has bonds S-S" in second
    assert not unknown_bonds(own, {})


def test_section_shows_pairs_of_the_structure_from_its_shortest_bond():
    hamiltonian = Hamiltonian(["Ag", "S", "I"], CUTOFF)
    own = {"Ag-S": np.array([2.4, 4.0])}
    picture, table = hopping_section(hamiltonian, own, {"Ag-S": np.array([2.3])}, "", {}).items
    assert isinstance(picture, Picture)
    assert isinstance(table, Table)
    assert set(picture.data["pair"]) == {"Ag-S"}
    assert picture.data["distance"].min() == pytest.approx(2.1)
    assert picture.data["distance"].max() == pytest.approx(CUTOFF)
    assert table.data["distance"].unique() == pytest.approx([2.4])
    assert not hopping_section(hamiltonian, {}, {}, "", {}).items


def test_factors_of_the_surroundings_are_those_of_the_bonds():
    """One for all bonds before a fit; afterwards mean and range over the bonds from s to p."""
    atoms = STRUCTURES[0].repeat((2, 1, 1))
    atoms.rattle(0.1)
    head = HamiltonianEdges(["Ag", "Br"], CUTOFF, orbitals=ORBITALS, n_in=16)
    model = potential(head)
    with recorded(head) as found:
        model(batch([atoms]))
    inputs, hamiltonian = found["inputs"], head.hamiltonian
    table = environment_factors(hamiltonian, inputs).set_index("orbitals")
    _, factor = hamiltonian.environment(inputs)
    i, j = (atoms.numbers[inputs[key]] for key in (host.idx_i, host.idx_j))
    expected = factor[(i == 47) & (j == 35), 1].detach().numpy()
    found = table.loc["Ag s - Br p σ", ["mean", "low", "high"]]
    assert list(found) == pytest.approx([expected.mean(), expected.min(), expected.max()])
    assert found["high"] > found["low"] > 0
    own = bond_distances([atoms], CUTOFF)
    _, shown = hopping_section(hamiltonian, own, {}, "", inputs).items
    assert shown.rows["factor"].str.contains(" to ").all()
    hamiltonian.reset_parameters()
    table = environment_factors(hamiltonian, inputs)
    np.testing.assert_allclose(table[["mean", "low", "high"]], 1)
