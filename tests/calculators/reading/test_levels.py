"""Band edges are counted by electrons, with and without spin polarisation."""

from collections import Counter

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed

from schnetpack_phonon.calculators.base import labels_from_results
from schnetpack_phonon.calculators.reading.levels import band_edges, levels_at_gap, mesh_edges
from tests.calculators.code_fixtures import CODES, output  # noqa: F401
from tests.calculators.spin_fixtures import SPINS


@pytest.mark.parametrize(
    ("occupations", "edges"),
    [
        ([2.0, 2.0, 0.0, 0.0], (-3.0, 1.0)),
        ([1.9, 1.2, 0.8, 0.1], (-3.0, 1.0)),
        ([2.0, 0.9, 0.6, 0.5], (-3.0, 1.0)),  # levels hold two electrons each
        ([1.5, 1.4, 0.6, 0.5], (-3.0, 1.0)),
        ([2.0, 1.0, 0.0, 0.0], (-3.0, -3.0)),  # no gap
    ],
)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_band_edges(occupations, edges, order):
    energies = np.array([-5.0, -3.0, 1.0, 2.0])
    assert band_edges(energies[order], np.array(occupations)[order]) == edges


@pytest.mark.parametrize("occupations", [[2.0, 2.0], [0.0, 0.5]])
def test_no_band_edge(occupations):
    with pytest.raises(CalculationFailed, match=r"no band edge: [40] electrons in 2 levels"):
        band_edges(np.array([-1.0, 1.0]), np.array(occupations))


LEVELS = np.array([[-5.0, -1.0, 2.0, 3.0], [-4.0, 0.5, 1.5, 9.0]])
AT_GAMMA = np.array([-6.0, 0.0, 1.25])
FULL = np.array([[2.0, 2.0, 0.0, 0.0]] * 2)


def test_edges_of_a_mesh():
    """Over the mesh and Gamma, which may have another number of bands."""
    edges = {"vbm": 0.5, "cbm": 1.25, "band_gap_gamma": 1.25, "partial_occupation": 0.0}
    assert mesh_edges(4, LEVELS, FULL, AT_GAMMA) == edges
    assert mesh_edges(3.9999999, LEVELS, FULL, AT_GAMMA) == edges  # as some codes write it
    higher = mesh_edges(4, LEVELS, FULL, AT_GAMMA + 0.75)
    assert (higher["vbm"], higher["cbm"], higher["band_gap_gamma"]) == (0.75, 1.5, 1.25)


@pytest.mark.parametrize(("band", "occupation"), [(1, 1.75), (1, 0.25), (2, 0.25)])
def test_partial_occupation_of_a_mesh(band, occupation):
    """Bands are counted by electrons, so that the edges do not move with it."""
    occupations = FULL.copy()
    occupations[1, band] = occupation
    edges = mesh_edges(4, LEVELS, occupations, AT_GAMMA)
    assert edges == mesh_edges(4, LEVELS, FULL, AT_GAMMA) | {"partial_occupation": 0.25}


@pytest.mark.parametrize(
    ("n_electrons", "message"),
    [
        (3, "3 electrons: a closed shell needs an even number"),
        (4.5, r"4\.5 electrons: a closed shell"),
        (6, "no band edge: 3 bands and 6 electrons"),
        (0, "no band edge: 3 bands and 0 electrons"),
    ],
)
def test_no_edges_of_a_mesh(n_electrons, message):
    with pytest.raises(CalculationFailed, match=message):
        mesh_edges(n_electrons, LEVELS, FULL, AT_GAMMA)


POINTS = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.25]])


@pytest.mark.parametrize(
    ("n_electrons", "columns"), [(4, [0, 1, 2, 3]), (5, [1, 2, 2, 3]), (3.9999999, [0, 1, 2, 3])]
)
def test_levels_at_the_gap(n_electrons, columns):
    """In ascending order, whatever that of the output; NaN where there is no further k-point."""
    n = n_electrons, LEVELS[:, ::-1], POINTS, np.array([2.0, 6.0])
    found = levels_at_gap(*n, n_levels=2, n_kpoints=3)
    np.testing.assert_array_equal(found["eigenvalues"][0, :2], LEVELS[:, columns])
    expected = [[0, 0, 0, 0.25], [0.5, 0, 0.25, 0.75]]
    np.testing.assert_array_equal(found["kpoints"][0, :2], expected)
    assert np.isnan(found["eigenvalues"][0, 2]).all()
    assert np.isnan(found["kpoints"][0, 2]).all()
    assert found["eigenvalues"].shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"n_levels": 3},
            "4 bands and 4 electrons are 2 levels below the gap and 2 above.*as many",
        ),
        ({"n_electrons": 6}, "3 levels below the gap and 1 above"),
        ({"n_kpoints": 1}, "has 2 k-points; expected at most 1"),
        ({"energies": np.array([LEVELS, LEVELS])}, "levels of two spins are no labels"),
        ({"energies": LEVELS * np.nan}, "not finite: eigenvalues"),
        ({"weights": np.array([1.0, np.nan])}, "not finite: kpoints"),
    ],
)
def test_no_levels_at_the_gap(change, message):
    given = {"n_electrons": 4, "energies": LEVELS, "kpoints": POINTS, "weights": np.ones(2)}
    with pytest.raises(CalculationFailed, match=message):
        levels_at_gap(**given | {"n_levels": 2, "n_kpoints": 2} | change)


@pytest.fixture
def with_levels(output):  # noqa: F811
    """Labels of a stored output, and its results; that of CP2K with the list of its k-points."""
    row = " BRILLOUIN|     {}           0.25000       -0.25000{:15.5f}{:15.5f}\n"
    grid = [(-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25)]
    points = "".join(row.format(k, *each) for k, each in enumerate(grid, 1))

    def read(name: str, kind: str) -> tuple[dict, dict]:
        code, mesh = CODES[name], [1, 1, 1] if kind == "gamma" else [2, 2, 2]
        folder = code.stored(kind)
        if name == "CP2K" and kind == "mesh":
            begin = "\n SCF WAVEFUNCTION OPTIMIZATION"
            folder = output(kind, begin, points + begin)
        calculator = code.make(kpoints=mesh, n_levels=3)
        results = calculator.read_output(folder, code.atoms)
        return labels_from_results(code.atoms, results), results

    return read


@pytest.mark.parametrize("name", SPINS)
@pytest.mark.parametrize("kind", ["gamma", "mesh"])
def test_levels_of_stored_outputs(with_levels, name, kind):
    """Edges of the mesh are the outermost of them; each k-point is of the mesh."""
    labels, results = with_levels(name, kind)
    (levels,), (kpoints,) = labels["eigenvalues"], labels["kpoints"]
    present = np.isfinite(kpoints).all(axis=1)
    np.testing.assert_array_equal(np.isfinite(levels).all(axis=1), present)
    assert (np.diff(levels[present], axis=1) >= 0).all()
    assert kpoints[present, 3].sum() == pytest.approx(1)
    fractions = kpoints[present, :3]
    steps = 4 if name == "CP2K" else 2
    np.testing.assert_allclose(fractions * steps, (fractions * steps).round(), atol=1e-6)
    if kind == "gamma" or name != "CP2K":  # whose mesh has no Gamma
        gamma = levels[present][np.abs(fractions).max(axis=1) < 1e-6].squeeze()
        assert gamma[3] - gamma[2] == pytest.approx(results["band_gap_gamma"], abs=1e-6)
        assert levels[present, 2].max() == pytest.approx(results["vbm"], abs=1e-6)
        assert levels[present, 3].min() == pytest.approx(results["cbm"], abs=1e-6)
    n_points = {"gamma": 1, "mesh": 4 if name == "CP2K" else 8}[kind]
    assert present.sum() == n_points
    assert len(levels) == (1 if kind == "gamma" else 8)


def test_closed_shell_of_two_spins():
    """The same as without spin polarisation."""
    both = [np.array([array, array]) for array in (LEVELS, FULL, AT_GAMMA)]
    assert mesh_edges(4, *both) == mesh_edges(4, LEVELS, FULL, AT_GAMMA)
    assert mesh_edges(4.0000001, *both) == mesh_edges(4, LEVELS, FULL, AT_GAMMA)


def test_open_shell_insulator():
    """Three electrons, two of them up: edges may be of different spins."""
    energies = np.array([LEVELS, LEVELS + 0.25])
    occupations = np.array([[[2.0, 2.0, 0.0, 0.0]] * 2, [[2.0, 0.0, 0.0, 0.0]] * 2])
    edges = mesh_edges(3, energies, occupations, np.array([AT_GAMMA, AT_GAMMA + 0.25]))
    # Highest of up: 0.5, of down: -3.75; lowest of up: 1.25, of down: -0.75.
    assert (edges["vbm"], edges["cbm"]) == (0.5, -0.75)
    np.testing.assert_array_equal(edges["band_gap_spin"], [0.75, 3.0])
    energies[1], down = LEVELS + 3, AT_GAMMA + 3
    edges = mesh_edges(3, energies, occupations, np.array([AT_GAMMA, down]))
    assert (edges["vbm"], edges["cbm"], edges["band_gap_gamma"]) == (0.5, 1.25, 1.25)
    assert edges["partial_occupation"] == 0
    np.testing.assert_array_equal(edges["band_gap_spin"], [0.75, 3.0])


@pytest.mark.parametrize(("shift", "gaps"), [(5e-4, None), (2e-3, [0.75, 0.75])])
def test_gaps_of_spins_that_differ(shift, gaps):
    """By more than the errors of outputs: a closed shell has none."""
    energies, at_gamma = (np.array([one, one + shift]) for one in (LEVELS, AT_GAMMA))
    edges = mesh_edges(4, energies, np.array([FULL, FULL]), at_gamma)
    assert ("band_gap_spin" in edges) == (gaps is not None)
    if gaps:
        np.testing.assert_allclose(edges["band_gap_spin"], gaps)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_half_metal(order):
    """One point of five has half the weight: electrons are counted in the spin with a gap."""
    up = np.array([[-3.0, -2.0, -1.0, 2.0]] * 4 + [[-3.0, 1.0, 1.5, 3.0]])
    down = np.array([[-4.0, 3.0, 4.0, 5.0]] * 4 + [[-3.5, 3.5, 4.0, 5.0]])
    energies = np.array([up, down])[order]
    edges = mesh_edges(3, energies, 2.0 * (energies < 0), energies[:, 0])
    assert edges["vbm"] > edges["cbm"]
    np.testing.assert_array_equal(edges["band_gap_spin"], np.array([0, 6.5])[order])


def test_gaps_of_random_levels():
    """Around a common Fermi level: a spin is a metal if one of its bands crosses it."""
    rng = np.random.default_rng(0)
    n_metals: Counter[int] = Counter()
    while n_metals.total() < 100:
        energies = np.sort(rng.normal(size=(2, 2, 4)))
        filled = (energies < 0).sum(axis=2)
        if filled.min() == 0 or filled.max() == 4 or filled.sum() % 2:
            continue
        edges = mesh_edges(filled.sum() / 2, energies, 2.0 * (energies < 0), energies[:, 0])
        highest = np.where(energies < 0, energies, -np.inf).max(axis=(1, 2))
        lowest = np.where(energies > 0, energies, np.inf).min(axis=(1, 2))
        metal = np.ptp(filled, axis=1) > 0
        found = edges["band_gap_spin"]
        np.testing.assert_allclose(found, np.where(metal, 0, lowest - highest), atol=1e-12)
        assert found.min() >= edges["cbm"] - edges["vbm"]
        n_metals[metal.sum()] += 1
    assert min(n_metals[n] for n in range(3)) > 5


def test_one_spin_without_electrons():
    energies, at_gamma = np.array([LEVELS, LEVELS + 9]), np.array([AT_GAMMA, AT_GAMMA + 9])
    occupations = np.array([[[2.0, 2.0, 0.0, 0.0]] * 2, [[0.0] * 4] * 2])
    edges = mesh_edges(2, energies, occupations, at_gamma)
    assert edges["vbm"] == 0.5
    assert "band_gap_spin" not in edges
    with pytest.raises(CalculationFailed, match="no band edge: 3 bands and 7 electrons, 2 and 5"):
        mesh_edges(7, energies, occupations, at_gamma)


def test_metal_with_a_fraction_of_an_electron_for_each_spin():
    """Bands overlap, however the electrons are shared."""
    energies = np.array([[[0.0, 1.0], [0.0, 3.0]], [[0.5, 2.0], [0.5, 4.0]]])
    occupations = np.array([[[2.0, 1.0], [2.0, 0.0]], [[1.0, 0.0], [2.0, 0.0]]])
    edges = mesh_edges(2, energies, occupations, np.array([[0.0, 1.0], [0.5, 2.0]]))
    assert edges["partial_occupation"] == 1


@pytest.fixture
def two_spins(output):  # noqa: F811
    """Results of a stored output, and of one with a second spin whose levels are higher."""

    def read(name: str, kind: str, shift: float) -> tuple[dict, dict]:
        code = CODES[name]
        file, *_ = SPINS[name]
        folder = output(kind, "a", "a", file, name)
        for file, change in SPINS[name].items():
            if (folder / file).exists():
                (folder / file).write_text(change((folder / file).read_text(), shift))
        one, two = (
            code.make().read_output(path, code.atoms) for path in (code.stored(kind), folder)
        )
        return one, two

    return read


@pytest.mark.parametrize("name", SPINS)
@pytest.mark.parametrize("kind", ["gamma", "mesh"])
def test_outputs_of_two_spins(two_spins, name, kind):
    """A closed shell calculated with two spins has the same labels."""
    one, two = two_spins(name, kind, 0.0)
    assert one.keys() == two.keys()
    for key, expected in one.items():
        np.testing.assert_allclose(two[key], expected, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("name", SPINS)
@pytest.mark.parametrize("kind", ["gamma", "mesh"])
def test_outputs_of_two_different_spins(two_spins, name, kind):
    """All levels of one spin are higher: its gap is the same, that over both is smaller."""
    one, two = two_spins(name, kind, 0.25)
    gap = one["cbm"] - one["vbm"]
    np.testing.assert_allclose(two["band_gap_spin"], [gap, gap], atol=1e-6)
    assert two["cbm"] - two["vbm"] == pytest.approx(gap - 0.25, abs=1e-6)
