"""The gap against the size of the supercell: meshes, degenerate edges, extrapolation."""

import numpy as np
import pandas as pd
import pytest
from ase import Atoms

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.evaluation.runs import read_run
from schnetpack_phonon.evaluation.thermal.averages import thermal_properties
from schnetpack_phonon.evaluation.thermal.sizes import (
    against_size,
    extrapolated,
    gap_against_size,
    mesh,
)
from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.heads import BandGap
from schnetpack_phonon.structures.crystals import Crystal
from tests.evaluation.thermal.thermal_fixtures import thermal_run
from tests.models.model_fixtures import CUTOFF

N, SEED = 8, 5
#: Of an insulator: two electrons of palladium in a deep level, all other levels are high.
ORBITALS = {
    "Cu": {"electrons": 0, "s": 2.0},
    "Pd": {"electrons": 2, "s": -12.0},
    "Au": {"electrons": 0, "s": 3.0},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    head = HamiltonianEdges(["Cu", "Pd", "Au"], CUTOFF, orbitals=ORBITALS)
    folder = tmp_path_factory.mktemp("sizes")
    return read_run(thermal_run(folder, 1, [head]), Trust(everything=True))


@pytest.fixture(scope="module")
def found(run):
    return gap_against_size([run], [1, 2], 300.0, N, SEED)


def row(table, size, edges):
    return table[(table["size"] == size) & (table["edges"] == edges)].iloc[0]


def test_the_training_size_has_the_average_of_the_page(run, found):
    """The same snapshots, though their force constants went through dynamical matrices."""
    expected = thermal_properties([run], [300], N, SEED).averages
    expected = expected[(expected["property"] == "band_gap") & (expected["n"] == N)]
    expected = expected[(expected["statistics"] == "quantum")].iloc[0]
    own = row(found, 2, "outermost")
    assert own["value"] == pytest.approx(expected["value"], abs=1e-4)
    assert own["error"] == pytest.approx(expected["error"], rel=1e-2)
    assert (own["n_atoms"], own["n"]) == (40, N)


def test_all_sizes_have_the_edges_of_the_ideal_crystal(found):
    assert row(found, 1, "outermost")["rest"] == pytest.approx(
        row(found, 2, "outermost")["rest"], abs=1e-6
    )


def test_averages_are_over_all_states_of_an_edge(found):
    """Cells of one valence level; their mean is below the highest one."""
    own = row(found, 2, "averaged")
    assert own["value"] >= row(found, 2, "outermost")["value"]


@pytest.mark.parametrize(
    ("matrix", "size", "n"),
    [([2, 2, 2], 2, 1), ([2, 2, 2], 3, 2), ([2, 2, 2], 4, 1), ([2, 2, 3], 1, 6), ([3, 3, 3], 6, 1)],
)
def test_mesh_has_the_wave_vectors_of_the_training_cell(matrix, size, n):
    crystal = Crystal("Po", Atoms("Po", cell=[3.3] * 3, pbc=True), matrix)
    points = mesh(crystal, size)
    assert points.shape == (n**3, 3)
    in_unit_cell = {tuple(np.round(p / size % 1, 6)) for p in points}
    folded = {tuple(np.round(p * n % 1, 6)) for p in points}
    assert folded == {(0, 0, 0)}
    assert len(in_unit_cell) == n**3


def test_line_through_exact_averages():
    n_atoms = np.array([40, 135, 320])
    table = pd.DataFrame(
        {
            "structure": "A",
            "edges": "outermost",
            "size": [2, 3, 4],
            "n_atoms": n_atoms,
            "value": 0.5 + 3.0 / n_atoms,
            "error": [0.002, 0.001, 0.001],
            "rest": 0.7,
        }
    )
    (line,) = extrapolated(table).to_dict("records")
    assert line["value"] == pytest.approx(0.5)
    assert line["slope"] == pytest.approx(3.0)
    x = 1 / n_atoms
    design = np.stack([x, np.ones(3)], axis=1) / table["error"].to_numpy()[:, None]
    assert line["error"] == pytest.approx(np.sqrt(np.linalg.inv(design.T @ design)[1, 1]))
    assert extrapolated(table[:1]).empty
    both = pd.concat([table, table.assign(edges="averaged")])
    assert len(against_size(both, extrapolated(both)).axes) == 1


def test_models_that_average_over_atoms_are_refused(tmp_path):
    run = read_run(thermal_run(tmp_path, 1, [BandGap(16, "band_gap")]))
    with pytest.raises(RunError, match=r"no learned Hamiltonian.*same gap for every size"):
        gap_against_size([run], [2], 300.0, N, SEED)
