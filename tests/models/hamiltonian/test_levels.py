"""Levels against closed forms, folding of bands, and gradients against finite differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from schnetpack import properties as host

from schnetpack_phonon.models.hamiltonian.levels import (
    band_edges,
    eigenvalues,
    kpoint_meshes,
    levels_at_gap,
)
from schnetpack_phonon.models.hamiltonian.matrix import Hamiltonian, MatrixElements
from tests.models.hamiltonian.test_matrix import bonds, randomised
from tests.models.model_fixtures import CUTOFF, batch, thermal

ELEMENTS = ["Ag", "S", "Br"]


def chain(first: float, second: float) -> MatrixElements:
    """Two sites a cell with hoppings in turn; elements above the diagonal count twice."""
    return MatrixElements(
        values=torch.tensor([2 * first, 2 * second], dtype=torch.float64, requires_grad=True),
        places=torch.tensor([1, 1]),
        bonds=torch.tensor([0, 1]),
        structures=torch.tensor([0, 0]),
        images=torch.tensor([[0.0, 0, 0], [-1, 0, 0]], dtype=torch.float64),
        sizes=torch.tensor([2]),
    )


def mesh(*counts: int) -> torch.Tensor:
    axes = [np.arange(n) / n for n in counts]
    return torch.tensor(list(itertools.product(*axes)), dtype=torch.float64)


def test_two_band_chain():
    """E = +-sqrt(a^2 + b^2 + 2ab cos k); the gap 2|a - b| opens at the edge of the zone."""
    a, b = 1.3, 0.8
    kpoints = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0, 0])
    found = eigenvalues(chain(a, b), kpoints).numpy()
    upper = np.sqrt(a * a + b * b + 2 * a * b * np.cos(2 * np.pi * kpoints[:, 0].numpy()))
    np.testing.assert_allclose(found, np.stack([-upper, upper], axis=1), atol=1e-12)
    elements = chain(a, b)
    (edges,) = band_edges(elements, torch.tensor([2]), [mesh(4, 1, 1)])
    np.testing.assert_allclose(edges.detach(), [b - a, a - b], atol=1e-12)
    (gradient,) = torch.autograd.grad(edges[1] - edges[0], elements.values)
    np.testing.assert_allclose(gradient, [1, -1], atol=1e-12)  # of 2a - 2b by 2a and 2b


def test_odd_number_of_electrons_half_fills_a_level():
    """At one wave vector both edges are this level; over several the band overlaps itself."""
    (edges,) = band_edges(chain(1.3, 0.8), torch.tensor([1]), [mesh(1, 1, 1)])
    np.testing.assert_allclose(edges.detach(), [-2.1, -2.1], atol=1e-12)
    (edges,) = band_edges(chain(1.3, 0.8), torch.tensor([1]), [mesh(2, 1, 1)])
    np.testing.assert_allclose(edges.detach(), [-0.5, -2.1], atol=1e-12)


def test_levels_at_the_gap_of_the_chain():
    """At each wave vector, in order; dE/d(2a) = (a + b cos k) / 2E, and a and b in turn."""
    a, b = 1.3, 0.8
    kpoints, elements = mesh(5, 1, 1), chain(a, b)
    (found,) = levels_at_gap(elements, torch.tensor([2]), [kpoints], 1)
    cosine = np.cos(2 * np.pi * kpoints[:, 0].numpy())
    upper = np.sqrt(a * a + b * b + 2 * a * b * cosine)
    np.testing.assert_allclose(found.detach(), np.stack([-upper, upper], axis=1), atol=1e-12)
    for k in range(5):
        (slope,) = torch.autograd.grad(found[k, 1], elements.values, retain_graph=True)
        expected = np.array([a + b * cosine[k], b + a * cosine[k]]) / upper[k] / 2
        np.testing.assert_allclose(slope, expected, atol=1e-12)


@pytest.mark.parametrize("n_electrons", [46, 45])
def test_levels_at_the_gap_are_those_next_to_it(n_electrons):
    """An odd number of electrons half fills one, which counts on both sides."""
    elements = randomised(Hamiltonian(ELEMENTS, CUTOFF))(bonds(thermal(strain=0.02)[1]))
    kpoints = mesh(3, 1, 1)
    (found,) = levels_at_gap(elements, torch.tensor([n_electrons]), [kpoints], 3)
    order = [20, 21, 22, 23, 24, 25] if n_electrons == 46 else [20, 21, 22, 22, 23, 24]
    np.testing.assert_allclose(found.detach(), eigenvalues(elements, kpoints)[:, order], atol=1e-12)


def test_levels_of_batches_are_those_of_single_structures():
    """Two of one size with other electrons, one larger; different numbers of wave vectors."""
    hamiltonian = randomised(Hamiltonian(ELEMENTS, CUTOFF))
    cell, other = thermal(strain=0.02)[1], thermal(seed=1)[1]
    structures, electrons = [cell, cell.repeat((2, 1, 1)), other], [46, 92, 43]
    kpoints = [mesh(3, 1, 1), mesh(1, 1, 1), mesh(2, 2, 1)]

    def levels(chosen: list[int]) -> list[torch.Tensor]:
        elements = hamiltonian(bonds(*[structures[k] for k in chosen]))
        n_electrons = torch.tensor([electrons[k] for k in chosen])
        return levels_at_gap(elements, n_electrons, [kpoints[k] for k in chosen], 3)

    for k, together in enumerate(levels([0, 1, 2])):
        (alone,) = levels([k])
        np.testing.assert_allclose(together.detach(), alone.detach(), atol=1e-9)
        gradients = [
            torch.autograd.grad(own[:, 0].sum(), hamiltonian.hoppings, retain_graph=True)[0]
            for own in (together, alone)
        ]
        np.testing.assert_allclose(*gradients, atol=1e-9)


@pytest.mark.parametrize("counts", [(1, 1, 1), (3, 2, 1)])
def test_edges_without_gradients_are_the_same(counts):
    """Of a batch of two, one of them with threefold degenerate levels."""
    hamiltonian = randomised(Hamiltonian(ELEMENTS, CUTOFF))
    inputs = bonds(thermal(amplitude=0)[1], thermal()[1])
    given = hamiltonian(inputs), hamiltonian.n_electrons(inputs), [mesh(*counts)] * 2
    with torch.no_grad():
        found = band_edges(*given)
    assert not found.requires_grad
    np.testing.assert_allclose(found, band_edges(*given).detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("n_electrons", [0, 4])
def test_no_level_is_filled_or_none_is_empty(n_electrons):
    with pytest.raises(ValueError, match=rf"2 orbitals and {n_electrons} valence .*1 filled"):
        band_edges(chain(1.3, 0.8), torch.tensor([n_electrons]), [mesh(1, 1, 1)])


def test_simple_cubic_s_band():
    """E = e + 2V (cos kx + cos ky + cos kz), nearest neighbours within the cutoff."""
    a, cutoff = 2.5, 3.4
    given = {"H": {"electrons": 1, "s": -6.0}}
    hamiltonian = Hamiltonian(["H"], cutoff, orbitals=given).double()
    elements = hamiltonian(bonds(Atoms("H", cell=[a] * 3, pbc=True)))
    x = a / cutoff
    hopping = -0.5 * 1.4 * 7.62 / a**2 * (1 - 10 * x**3 + 15 * x**4 - 6 * x**5)
    kpoints = torch.tensor(np.random.default_rng(0).random((5, 3)))
    expected = -6 + 2 * hopping * np.cos(2 * np.pi * kpoints.numpy()).sum(axis=1)
    np.testing.assert_allclose(eigenvalues(elements, kpoints)[:, 0], expected, atol=1e-6)


def test_bands_of_a_supercell_are_folded():
    """Levels of 2x1x2 cells at K are those of the cell at the wave vectors that fold onto K."""
    hamiltonian = randomised(Hamiltonian(ELEMENTS, CUTOFF))
    atoms, repeats = thermal(strain=0.02)[1], np.array([2, 1, 2])
    point = np.array([0.13, -0.31, 0.27])
    folded = [(point + shift) / repeats for shift in itertools.product((0, 1), (0,), (0, 1))]
    cell = eigenvalues(hamiltonian(bonds(atoms)), torch.tensor(np.array(folded)))
    supercell = bonds(atoms.repeat(repeats))
    found = eigenvalues(hamiltonian(supercell), torch.tensor(point[None]))[0]
    np.testing.assert_allclose(found, cell.flatten().sort().values, atol=1e-8)


def test_gradient_over_a_mesh_is_the_slope():
    """Along a random displacement of all atoms, at wave vectors whose matrix is complex, too."""
    hamiltonian = randomised(Hamiltonian(ELEMENTS, CUTOFF))
    meshes, n_electrons = [mesh(3, 2, 1)], torch.tensor([46])
    inputs = bonds(thermal(strain=0.02)[1])
    vectors = inputs[host.Rij].detach()
    rng = np.random.default_rng(0)
    shift = torch.tensor(rng.normal(size=(5, 3)))
    along = shift[inputs[host.idx_j]] - shift[inputs[host.idx_i]]

    def edges(step: torch.Tensor) -> torch.Tensor:
        elements = hamiltonian(inputs | {host.Rij: vectors + step * along})
        next_to_it = levels_at_gap(elements, n_electrons, meshes, 3)[0]
        return torch.cat([band_edges(elements, n_electrons, meshes)[0], next_to_it.flatten()])

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    ends = [edges(torch.tensor(x, dtype=torch.float64)).detach() for x in (-1e-4, 1e-4)]
    for found, slope in zip(edges(step), (ends[1] - ends[0]) / 2e-4, strict=True):
        (gradient,) = torch.autograd.grad(found, step, retain_graph=True)
        assert gradient.item() == pytest.approx(slope.item(), rel=1e-5)


def test_gradient_at_degenerate_levels_has_the_symmetry_of_the_crystal():
    """No slope by displacements in a cubic crystal; by volume, where levels stay together, it is
    that of finite differences.
    """
    hamiltonian = Hamiltonian(["Cu", "Cl"], CUTOFF).double()
    inputs = bonds(Atoms("CuCl", [[0, 0, 0], [1.35] * 3], cell=5.4 * (1 - np.eye(3)) / 2, pbc=True))
    levels = eigenvalues(hamiltonian(inputs), torch.zeros(1, 3))[0]
    n_filled = 9
    assert levels[n_filled - 1] - levels[n_filled - 3] < 1e-9  # three levels
    vectors = inputs[host.Rij].detach()

    def edges(positions: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        moved = positions[inputs[host.idx_j]] - positions[inputs[host.idx_i]]
        elements = hamiltonian(inputs | {host.Rij: vectors * scale + moved})
        return band_edges(elements, torch.tensor([2 * n_filled]), [mesh(1, 1, 1)])[0]

    positions = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    steps = torch.tensor([-1e-5, 1e-5], dtype=torch.float64)
    ends = [edges(positions, x).detach() for x in scale.detach() + steps]
    found = edges(positions, scale)
    for k, slope in enumerate((ends[1] - ends[0]) / 2e-5):
        forces, volume = torch.autograd.grad(found[k], [positions, scale], retain_graph=True)
        assert forces.abs().max() < 1e-8
        assert volume.item() == pytest.approx(slope.item(), rel=1e-5)


def test_gradient_where_levels_cross_is_the_mean_of_both_sides():
    """Levels -|x| and |x| of two sites that do not mix; slope 0 where they meet."""
    for x, slope in ((-0.1, -1), (0, 0), (0.1, 1)):
        elements = chain(0, 0)._replace(
            values=torch.tensor([x, -x], dtype=torch.float64, requires_grad=True),
            places=torch.tensor([0, 3]),
        )
        (edges,) = band_edges(elements, torch.tensor([2]), [mesh(1, 1, 1)])
        np.testing.assert_allclose(edges.detach(), [-abs(x), abs(x)], atol=1e-12)
        for edge, sign in zip(edges, (-1, 1), strict=True):
            (gradient,) = torch.autograd.grad(edge, elements.values, retain_graph=True)
            assert (gradient[0] - gradient[1]).item() == pytest.approx(sign * slope, abs=1e-12)


def test_meshes_follow_the_cell_and_its_periodic_directions():
    """A cell with the reciprocal lengths 1/4, 1/8 and 1/16, a slab, a molecule."""
    cell = np.diag([4.0, 8.0, 16.0])
    structures = [
        Atoms("H", cell=cell, pbc=True),
        Atoms("H", cell=cell, pbc=[True, False, True]),
        Atoms("H"),
    ]
    full, slab, molecule = kpoint_meshes(batch(structures, torch.float64), 16.0)
    assert len(full) == 6  # of 4 x 2: pairs of k and -k, and four points that are their own
    np.testing.assert_allclose(full[0], 0)
    assert full[:, 2].abs().max() == 0
    np.testing.assert_allclose(slab, [[0, 0, 0], [0.25, 0, 0], [0.5, 0, 0]])
    np.testing.assert_allclose(molecule, [[0, 0, 0]])
