"""Snapshots of molecular dynamics: parents, sites, what is refused, and a database."""

from types import SimpleNamespace

import ase.db
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.ensembles.base import planned_parents
from schnetpack_phonon.ensembles.dynamics.ensemble import MolecularDynamics, on_sites
from schnetpack_phonon.structures.crystals import Crystal, Crystals
from tests.data.data_fixtures import ensemble_data
from tests.ensembles.dynamics.dynamics_fixtures import SpringModel, md
from tests.ensembles.ensemble_fixtures import first, hessian


@pytest.fixture
def calculator(nacl):
    return SpringModel(nacl[1].ideal, hessian(nacl[1]))


def test_snapshot_k_is_the_same_however_many_are_drawn(calculator, nacl, tmp_path):
    """Stretches of two snapshots, of one replica after the other."""
    crystal = nacl[0]
    few, many = (md(calculator, tmp_path / f"{n}", n_snapshots=n) for n in (3, 8))
    one, other = (first(e, crystal, crystal.supercell, e.n_snapshots) for e in (few, many))
    for a, b in zip(one, other, strict=False):
        np.testing.assert_array_equal(a.atoms.positions, b.atoms.positions)
        assert (a.parent, a.index, a.phonons) == (b.parent, b.index, b.phonons)
    assert [s.phonons["replica"] for s in other] == [0, 0, 1, 1, 0, 0, 1, 1]
    parents = [s.parent for s in other]
    assert [parents.count(p) for p in dict.fromkeys(parents)] == [2, 2, 2, 2]
    planned = planned_parents(many, [crystal])
    assert [planned.count(p) for p in dict.fromkeys(planned)] == [2, 2, 2, 2]
    times = [s.phonons["md_time"] for s in other]
    assert times[:2] == times[2:4]
    assert times[0] < times[1] < times[4] < times[5]
    assert {s.phonons["n_off_site"] for s in other} == {0}
    assert {(s.kind, s.parameter_name, s.parameter, s.seed) for s in other} == {
        ("md", "temperature", 300.0, 3)
    }
    for s in other:
        u = s.atoms.positions - s.ideal.positions
        np.testing.assert_allclose(u.mean(axis=0), 0, atol=1e-6)
        assert 0.02 < u.std() < 0.3


def test_atoms_follow_the_sites_that_they_are_on(nacl):
    """Two of an element have exchanged their sites, one through the boundary of the cell."""
    ideal = nacl[1].ideal
    rng = np.random.default_rng(1)
    u = rng.normal(0, 0.05, (len(ideal), 3))
    u -= u.mean(axis=0)
    sodium = np.flatnonzero(ideal.symbols == "Na")
    moved = ideal.positions + u
    moved[sodium[[0, 1]]] = moved[sodium[[1, 0]]]
    moved[sodium[0]] += ideal.cell.array[1]
    atoms, n_off_site = on_sites(ideal, moved + np.array([0.3, 0.0, 0.0]))
    assert n_off_site == 2
    np.testing.assert_allclose(atoms.positions - ideal.positions, u, atol=2e-6)
    assert on_sites(ideal, ideal.positions + u)[1] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperatures": [300, 0]}, r"temperatures is 0 K; expected > 0"),
        ({"temperatures": []}, r"temperatures is empty"),
        ({"time_step": 0}, r"time_step is 0 fs; expected > 0"),
        ({"friction": -1.0}, r"friction is -1 1/ps; expected > 0"),
        ({"n_replicas": 0}, r"n_replicas is 0; expected >= 1"),
        ({"frames_per_parent": 0}, r"frames_per_parent is 0; expected >= 1"),
    ],
)
def test_options(calculator, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        md(calculator, tmp_path, **options)


def test_the_potential(calculator, nacl, tmp_path):
    """That of the labels by default; one that cannot is refused before anything runs."""
    with pytest.raises(ValueError, match=r"needs a potential: set data.ensemble.calculator"):
        MolecularDynamics([300], 1)
    labels = AseCalculator(EMT)
    assert MolecularDynamics([300], 1, label_calculator=labels).calculator is labels
    own = MolecularDynamics([300], 1, calculator, labels)
    assert own.settings["calculator"] == calculator.settings
    own.calculator = SimpleNamespace(properties=("band_gap",), settings={"code": "edges"})
    with pytest.raises(ValueError, match=r"molecular dynamics .* needs energy, .*gives band_gap"):
        own.check([nacl[0]])
    small = md(AseCalculator(EMT, min_atoms=99), tmp_path)
    with pytest.raises(ValueError, match=r"has 16 atoms; .* >= 99"):
        small.check([nacl[0]])


def test_database_and_preview(tmp_path):
    """Of copper; the labels are of the same calculator as the dynamics."""
    options = {"n_snapshots": 4, "friction": 20.0, "time_step": 5.0, "equilibration": 1.0}
    data = ensemble_data(
        tmp_path,
        md(AseCalculator(EMT), tmp_path / "dynamics", temperatures=[100], **options),
        structure=Crystals([Crystal("Cu", bulk("Cu", cubic=True), [1, 1, 1])], relax=False),
    )
    text = data.preview()
    assert "dynamics of Cu" in text
    picture = tmp_path / "data" / "test_preview" / "dynamics_Cu.png"
    assert picture.stat().st_size > 10_000
    data.prepare_data()
    rows = list(ase.db.connect(data.datapath).select())
    assert [row.replica for row in rows] == [0, 0, 1, 1]
    assert {row.md_code for row in rows} == {AseCalculator(EMT).code_version}
    for row in read_rows(data.datapath, range(4)):
        expected = AseCalculator(EMT).label(row.atoms)["energy"]
        assert row.data["energy"] == pytest.approx(expected)
