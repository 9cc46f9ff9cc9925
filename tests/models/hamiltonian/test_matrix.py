"""Matrices of dimers written out by hand, and what the order of bonds must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from schnetpack import properties as host
from schnetpack.atomistic import PairwiseDistances
from torch import nn

from schnetpack_phonon.models.hamiltonian.matrix import Hamiltonian, MatrixElements
from tests.models.model_fixtures import CUTOFF, batch, thermal

ALL = {"electrons": 4, "s": -9.0, "p": -5.0, "d": -3.0}
ELEMENTS = ["Ag", "S", "Br"]


def bonds(*structures: Atoms) -> dict[str, torch.Tensor]:
    return PairwiseDistances()(batch(structures, torch.float64))


def dense(elements: MatrixElements) -> np.ndarray:
    """The matrix of one structure at Gamma."""
    size = int(elements.sizes[0])
    flat = torch.zeros(size * size, dtype=torch.float64)
    matrix = flat.index_add(0, elements.places, elements.values).reshape(size, size)
    return ((matrix + matrix.T) / 2).detach().numpy()


def randomised(hamiltonian: Hamiltonian) -> Hamiltonian:
    generator = torch.Generator().manual_seed(0)
    for parameter in hamiltonian.parameters():
        nn.init.normal_(parameter, 0, 0.3, generator=generator)
    return hamiltonian.double()


# Along z: p are x, y, z and d are xy, yz, xz, x2-y2, 3z2-r2; sigma, pi and delta are 0, 1 and 2.
BONDS_ALONG_Z = {
    "ss": [[0]],
    "sp": [[None, None, 0]],
    "sd": [[None, None, None, None, 0]],
    "pp": [[1, None, None], [None, 1, None], [None, None, 0]],
    "pd": [[None, None, 1, None, None], [None, 1, None, None, None], [None] * 4 + [0]],
    "dd": [[bond if m == k else None for m in range(5)] for k, bond in enumerate([2, 1, 1, 2, 0])],
}


@pytest.mark.parametrize("pair", BONDS_ALONG_Z)
def test_dimer_by_hand(pair):
    """Half of Harrison's hoppings at 2.1 Ang, times the cutoff function 1 - 10x^3 + 15x^4 - 6x^5.

    Rows are of the lower atom; from the upper one, odd pairs of shells change their sign.
    """
    r = 2.1
    x = r / CUTOFF
    cut = 1 - 10 * x**3 + 15 * x**4 - 6 * x**5
    eta = {"ss": [-1.4], "sp": [1.84], "sd": [-3.16], "pp": [3.24, -0.81], "pd": [-2.95, 1.36]}
    n_d = pair.count("d")
    scale = 0.5 * cut * 7.62 / r**2 * (0.9 / r) ** (1.5 * n_d)
    strengths = scale * np.array((eta | {"dd": [-16.2, 8.75, 0.0]})[pair])
    expected = [[0 if k is None else strengths[k] for k in row] for row in BONDS_ALONG_Z[pair]]
    hamiltonian = Hamiltonian(["H", "He"], CUTOFF, orbitals={"H": ALL, "He": ALL}).double()
    found = dense(hamiltonian(bonds(Atoms("HHe", [[0, 0, 0], [0, 0, r]]))))
    a, b = ({"s": slice(0, 1), "p": slice(1, 4), "d": slice(4, 9)}[shell] for shell in pair)
    np.testing.assert_allclose(found[:9, 9:][a, b], expected, atol=1e-6)
    sign = -1 if pair in ("sp", "pd") else 1
    np.testing.assert_allclose(found[9:, :9][a, b], sign * np.array(expected), atol=1e-6)
    np.testing.assert_allclose(found[:9, :9], np.diag([-9] + 3 * [-5] + 5 * [-3]), atol=1e-6)


def test_crystal_field_mixes_shells_where_a_site_is_polar():
    """Of the middle of three atoms: with neighbours on both sides s and p do not mix."""
    hamiltonian = randomised(Hamiltonian(["H"], 2.0, orbitals={"H": ALL}))
    mixing = []
    for positions in ([[0, 0, 0], [0, 0, 1.5], [0, 0, 3.0]], [[0, 0, 1.5], [0, 0, 0], [0, 0, 10]]):
        found = dense(hamiltonian(bonds(Atoms("H3", positions))))
        middle = slice(9, 18) if positions[0][2] == 0 else slice(0, 9)
        mixing.append(np.abs(found[middle, middle][0, 1:4]).max())
    assert mixing[0] < 1e-12
    assert mixing[1] > 1e-3


def test_order_of_bonds_and_their_reversal_change_nothing():
    hamiltonian = randomised(Hamiltonian(ELEMENTS, CUTOFF))
    inputs = bonds(thermal()[1])
    expected = dense(hamiltonian(inputs))
    order = torch.randperm(len(inputs[host.idx_i]), generator=torch.Generator().manual_seed(0))
    for key in (host.idx_i, host.idx_j, host.Rij, host.offsets):
        inputs[key] = inputs[key][order]
    np.testing.assert_allclose(dense(hamiltonian(inputs)), expected, atol=1e-12)
    for first, second in ((host.idx_i, host.idx_j), (host.idx_j, host.idx_i)):
        inputs[f"new{first}"] = inputs[second]
    inputs |= {key: inputs[f"new{key}"] for key in (host.idx_i, host.idx_j)}
    inputs |= {key: -inputs[key] for key in (host.Rij, host.offsets)}
    np.testing.assert_allclose(dense(hamiltonian(inputs)), expected, atol=1e-12)


def test_matrix_elements_end_smoothly_at_the_cutoff():
    hamiltonian = randomised(Hamiltonian(["H"], 3.0, orbitals={"H": ALL}))
    for gap, size in ((1e-2, 1e-4), (-1e-2, 0.0)):
        found = dense(hamiltonian(bonds(Atoms("H2", [[0, 0, 0], [0, 0, 3.0 - gap]]))))
        assert np.abs(found[:9, 9:]).max() <= size


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("AgI", [[0, 0, 0], [0, 0, 3]]), "atomic number 53.*name it in elements"),
        (Atoms("AgS", [[0, 0, 0], [0, 0, 0.3]]), "closer than 0.5 Ang"),
    ],
)
def test_unusable_structures_are_refused(atoms, message):
    with pytest.raises(ValueError, match=message):
        Hamiltonian(ELEMENTS, CUTOFF).double()(bonds(atoms))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutoff": 0.0}, "cutoff is 0 Ang; expected > 0"),
        ({"n_radial": 0}, "n_radial is 0; expected >= 1"),
        ({"orbitals": {"H": ALL}}, "orbitals are given for H; expected some of elements.*Ag"),
    ],
)
def test_unusable_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Hamiltonian(**{"elements": ELEMENTS, "cutoff": CUTOFF} | options)


def test_elements_are_named_once():
    with pytest.raises(ValueError, match="expected different symbols"):
        Hamiltonian(["Ag", "Ag"], CUTOFF)


def test_learned_terms_are_bounded_below_the_shortest_bond():
    """What is learned becomes what it is 0.1 Ang below that bond, without a kink."""
    hamiltonian = randomised(Hamiltonian(ELEMENTS, CUTOFF))
    for distance in (3.0, 2.5, 2.7):
        hamiltonian.note_bonds(bonds(Atoms("AgS", [[0, 0, 0], [0, 0, distance]])))
    nearest = torch.tensor([[0, 2.5, 0], [2.5, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(hamiltonian.nearest, nearest.double())

    def learned(distance):
        along = torch.tensor(distance, dtype=torch.float64)
        own = (0.5 + hamiltonian.universal[0, 1]) * hamiltonian.two_centre.universal(along).T
        factor = hamiltonian.cutoff_fn(along).unsqueeze(1)
        found = hamiltonian.hoppings_along(along, "Ag", "S") / factor - own
        return found[:, 1].detach().numpy()  # s and p, which are not one kind

    below, steps = learned([0.6, 1.5, 2.0]), np.diff(learned([2.499, 2.5, 2.501]))
    assert steps[0] == pytest.approx(steps[1], rel=0.05)
    hamiltonian.nearest.zero_()
    np.testing.assert_allclose(below, learned([2.4]).repeat(3), atol=1e-3)
    assert np.ptp(learned([0.6, 1.5, 2.0])) > 0.1
