"""One database, built once; failed and repeated builds."""

import gc
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.data.card import write_card
from schnetpack_phonon.data.database import DatabaseError, read_metadata
from schnetpack_phonon.data.reading import read_provenance
from schnetpack_phonon.ensembles.base import Snapshot
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.labels.finite_strain import FiniteStrain
from schnetpack_phonon.labels.labelling import Job
from schnetpack_phonon.labels.store import LabelStore, Record
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.phonons.phonopy_files import PhonopyFiles
from schnetpack_phonon.structures.crystals import Antiperovskites, antiperovskite
from schnetpack_phonon.structures.elasticity import point_group, symmetrized
from tests.data.data_fixtures import ALLOYS, ensemble_data, rows
from tests.data.generation.generation_fixtures import UNRELAXED
from tests.phonons.force_constants_fixtures import phonopy_of, save


def test_rows_hold_what_the_calculator_says(built):
    with ase.db.connect(built.datapath) as db:
        row = db.get(7)
        atoms = row.toatoms()
    atoms.calc = EMT()
    assert row.data[properties.energy].item() == pytest.approx(atoms.get_potential_energy())
    np.testing.assert_allclose(row.data[properties.forces], atoms.get_forces(), atol=1e-9)
    np.testing.assert_allclose(
        row.data[properties.stress][0], atoms.get_stress(voigt=False), atol=1e-12
    )
    assert row.data[properties.hydrostatic_stress].item() == pytest.approx(
        np.trace(atoms.get_stress(voigt=False)) / 3
    )


def test_every_group_is_complete(built):
    table = read_provenance(built.datapath)
    assert (table.groupby(["structure", "temperature"])["snapshot"].nunique() == 4).all()
    assert sorted(table["structure"].unique()) == sorted(ALLOYS)
    assert table["parent"].is_unique


def test_second_start_computes_nothing(built):
    before = Path(built.datapath).stat().st_mtime_ns
    never = partial(pytest.fail, "an executor is made")
    ensemble_data(Path(built.datapath).parents[1], executor=never).prepare_data()
    assert Path(built.datapath).stat().st_mtime_ns == before


def test_number_of_workers_does_not_matter(built, tmp_path):
    data = ensemble_data(tmp_path, executor=partial(ThreadPoolExecutor, 1))
    data.prepare_data()
    assert rows(data.datapath) == rows(built.datapath)


def test_longer_ensemble_extends_and_shares_labels(built, tmp_path):
    store = Path(built.generation.label_store)
    before = len(LabelStore(store))
    ensemble = PhononEnsemble([100, 300], n_snapshots=5, seed=1)
    data = ensemble_data(tmp_path, ensemble, label_store=str(store))
    data.prepare_data()
    parents = set(read_provenance(data.datapath)["parent"])
    assert set(read_provenance(built.datapath)["parent"]) < parents
    assert len(LabelStore(store)) == before + 4  # one more for each of 2 crystals x 2 temperatures


def test_other_settings_are_named_and_nothing_is_overwritten(built):
    folder = Path(built.datapath).parents[1]
    content = Path(built.datapath).read_bytes()
    other = ensemble_data(folder, PhononEnsemble([100, 400], n_snapshots=4, seed=2))
    with pytest.raises(DatabaseError, match=r"(?s)ensemble\.seed: 1 in the .*, 2 .*temperatures"):
        other.prepare_data()
    assert Path(built.datapath).read_bytes() == content


def test_damaged_database_is_refused_and_left_alone(built, tmp_path):
    data = ensemble_data(tmp_path)
    path, content = Path(data.datapath), Path(built.datapath).read_bytes()
    path.parent.mkdir()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatabaseError, match=str(path)):
        data.prepare_data()
    assert path.read_bytes() == content[: len(content) // 2]


def test_place_that_cannot_be_written(tmp_path, read_only, no_locks):
    with pytest.raises(DatabaseError, match=r"No locks .*set data.datapath to a place on a local"):
        ensemble_data(tmp_path).prepare_data()
    with read_only(), pytest.raises(DatabaseError, match=r"Permission .*make the folder writable"):
        ensemble_data(read_only.folder).prepare_data()
    data = ensemble_data(tmp_path)
    Path(data.datapath).parent.mkdir(exist_ok=True)
    Path(data.datapath).with_name("test_preview").touch()
    with pytest.raises(ValueError, match=r"test_preview .*: .* is a file; expected a"):
        data.preview()
    assert not data.generation.label_store.exists()


@pytest.mark.parametrize("broken", ["phonopy_params.yaml", "FORCE_SETS"])
def test_files_of_phonopy_are_read_before_anything_is_computed(tmp_path, broken):
    alloy = Antiperovskites(["Cu3PdAu"], lattice_constants=ALLOYS)  # to be relaxed
    save(phonopy_of(alloy.crystals[0]), tmp_path / "phonopy_params.yaml")
    (tmp_path / broken).write_text("something else\n")
    source = PhonopyFiles(str(tmp_path / "phonopy_params.yaml"), Instabilities())
    data = ensemble_data(tmp_path, structure=alloy, phonons=source)
    for compute in (data.prepare_data, data.preview):
        with pytest.raises(ValueError, match=f"phonopy cannot read .*{broken}"):
            compute()
    assert not data.generation.label_store.exists()


class _Moody(EMT):
    """Fails for a share of all displaced structures, always the same ones."""

    share = 0.2

    def calculate(self, atoms=None, properties=(), system_changes=()):
        if len(atoms) == 40 and atoms.positions[0, 0] * 1e4 % 1 < self.share:
            raise CalculationFailed("not converged")
        super().calculate(atoms, properties, system_changes)


class _Hopeless(_Moody):
    share = 1.0


def test_failed_snapshots_are_replaced_and_counted(tmp_path):
    data = ensemble_data(
        tmp_path,
        RandomEnsemble([0.1], n_snapshots=20, seed=3),
        AseCalculator(_Moody),
        structure=Antiperovskites(list(ALLOYS), relax=False, lattice_constants=ALLOYS),
        max_failed_share=0.5,
    )
    data.prepare_data()
    metadata = read_metadata(data.datapath)
    table = read_provenance(data.datapath)
    assert len(table) == metadata["n_rows"] == 40
    store = LabelStore(data.generation.label_store)
    errors = [store[key].error for key in store if store.failed(key)]
    # Both ideal crystals fail too: nobody can tell then whether they are relaxed.
    assert len(errors) == metadata["n_failed"] + 2 > 2
    assert all("not converged" in error for error in errors)
    assert table["snapshot"].max() >= 20  # a later snapshot stands in


class _NoShear(EMT):
    """Fails for some sheared crystals."""

    def calculate(self, atoms=None, properties=(), system_changes=()):
        if atoms.cell[1, 2] > 0.01 and atoms.positions[0, 0] * 1e4 % 1 < 0.4:
            raise CalculationFailed("not converged")
        super().calculate(atoms, properties, system_changes)


def test_elastic_tensors(tmp_path):
    """In each row, on average cubic; a snapshot without one is replaced and counted."""
    data = ensemble_data(
        tmp_path,
        RandomEnsemble([0.05], n_snapshots=10, seed=3),
        AseCalculator(_NoShear),
        structure=Antiperovskites(["Cu3PdAu"], lattice_constants=ALLOYS),
        max_failed_share=0.5,
        elastic=FiniteStrain(),
    )
    data.prepare_data()
    metadata = read_metadata(data.datapath)
    assert metadata["n_rows"] == 10
    assert metadata["n_failed"] > 0
    with ase.db.connect(data.datapath) as db:
        assert db.metadata["_property_unit_dict"][properties.elastic_tensor] == "GPa"
        tensors = np.array([row.data[properties.elastic_tensor] for row in db.select()])
    assert tensors.shape == (10, 1, 6, 6)
    mean = tensors.mean(axis=(0, 1))
    cubic = symmetrized(mean, point_group(antiperovskite("Cu3PdAu", 4.35)))
    np.testing.assert_allclose(mean, cubic, atol=5)  # of 100 to 200 GPa
    assert re.search(r"\| elastic tensors: strain +\| 0\.005 +\|", write_card(data.datapath))
    plain = ensemble_data(tmp_path, elastic=None)
    with pytest.raises(DatabaseError, match=r"elastic: .*0\.005.* nothing requested"):
        plain.prepare_data()


class _Watching(EMT):
    """Counts snapshots and what is made of them in memory, when most are behind it."""

    n_calls = n_alive = 0

    def calculate(self, *args, **kwargs):
        _Watching.n_calls += 1
        if _Watching.n_calls == 80:
            gc.collect()
            alive = [type(thing) in (Snapshot, Job, Record) for thing in gc.get_objects()]
            _Watching.n_alive = sum(alive)
        super().calculate(*args, **kwargs)


def test_ensemble_is_not_held_in_memory(tmp_path):
    """Neither its snapshots nor its labels: only what is being worked on."""
    data = ensemble_data(
        tmp_path,
        RandomEnsemble([0.1], n_snapshots=100, seed=3),
        AseCalculator(_Watching),
        structure=UNRELAXED,
    )
    data.prepare_data()
    assert len(read_provenance(data.datapath)) == 100
    assert 0 < _Watching.n_alive < 20


def test_too_many_failures_stop_with_the_reason(tmp_path):
    data = ensemble_data(
        tmp_path,
        RandomEnsemble([0.1], n_snapshots=4, seed=3),
        AseCalculator(_Hopeless),
        structure=UNRELAXED,
    )
    with pytest.raises(LabellingError, match="not converged"):
        data.prepare_data()
    assert not Path(data.datapath).exists()
    assert list(Path(data.datapath).parent.glob("*.part*")) == []


def test_too_small_a_supercell_is_refused_before_anything_runs(tmp_path):
    data = ensemble_data(tmp_path, calculator=AseCalculator(EMT, min_atoms=100))
    with pytest.raises(ValueError, match=r"40 atoms.*100"):
        data.prepare_data()
    assert list(tmp_path.iterdir()) == []
