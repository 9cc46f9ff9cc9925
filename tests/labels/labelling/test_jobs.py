"""Jobs are known by what they compute; what cannot be stored or done; plans, what is told."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.calculators.tight_binding import TightBinding
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import LabellingError, MissingLabelsError
from schnetpack_phonon.labels.labelling import Job, Labeller, Planner, label_job
from schnetpack_phonon.labels.relaxation import relax_job, relaxed_label_job
from schnetpack_phonon.labels.store import LabelStore
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.data.data_fixtures import copper, record, same
from tests.labels.labelling.labelling_fixtures import AtOnce


def test_identity_of_a_label(emt, pool):
    """The same structure has the same key in any process; whatever changes a label changes it."""
    atoms = copper(0)
    key = label_job(emt, atoms, "").key
    assert pool.submit(label_job, emt, atoms, "").result().key == key
    noise = atoms.copy()
    noise.positions += 1e-13
    noise.cell *= 1 + 1e-14
    assert label_job(emt, noise, "another description").key == key
    moved, strained, alloy, slab = (atoms.copy() for _ in range(4))
    moved.positions[3, 1] += 1e-7
    strained.cell[0, 1] += 1e-7
    alloy.numbers[5] = 47
    slab.pbc[2] = False
    others = [label_job(emt, a, "").key for a in (moved, strained, alloy, slab, atoms[::-1])]
    others += [label_job(c, atoms, "").key for c in (TightBinding(), TightBinding("GFN2-xTB"))]
    assert len({key, *others}) == 8


def test_keys_of_earlier_versions():
    """They are in the stores of users, who would have to compute their labels again."""
    settings = {"code": "CP2K", "kpoints": [2, 2, 2], "cutoff": 280.0}
    calculator = SimpleNamespace(settings=settings, code_version="CP2K 2023.1", label=None)
    crystal = Crystal("NaCl", bulk("NaCl", "rocksalt", a=5.6), supercell_matrix([2, 2, 2]))
    assert relax_job(calculator, crystal).key == "h655781f6c4339026"
    atoms = crystal.unitcell.copy()
    atoms.positions[1] += [0.1, -0.25, 1e-6]
    assert label_job(calculator, atoms, "").key == "h42b34be932442a49"


def test_record_tells_what_was_calculated(store, threads, emt):
    """Enough to find its key again; also where it failed."""
    lonely = Atoms("U", cell=[3, 3, 3], pbc=True)  # EMT does not know it
    jobs = [label_job(emt, copper(0), "copper"), label_job(emt, lonely, "uranium")]
    Labeller(threads, store).run(jobs, "two")
    records = [LabelStore(store.path)[job.key] for job in jobs]
    assert [r.input.description for r in records] == ["copper", "uranium"]
    assert "NotImplementedError" in records[1].error
    for record_ in records:
        assert label_job(emt, record_.input.atoms, "").key == record_.key
        assert (record_.input.code, record_.input.settings) == (emt.code_version, emt.settings)


def test_identity_of_a_relaxation(emt):
    def key(a=3.6, supercell=(2, 2, 2)):
        return relax_job(emt, Crystal("Cu", bulk("Cu", a=a), supercell_matrix(supercell))).key

    assert key() == key()
    assert len({key(), key(a=3.7), key(supercell=(3, 3, 3))}) == 3


def test_relaxation_as_a_job(emt, pool, store):
    crystal = Crystal("Cu", bulk("Cu", a=3.7), supercell_matrix([2, 2, 2]))
    (result,) = Labeller(pool, store).run([relax_job(emt, crystal)], "lattice")
    assert result.labels["cell"].shape == (3, 3)
    assert abs(np.linalg.det(result.labels["cell"])) == pytest.approx(3.59**3 / 4, rel=0.02)


def test_labels_of_relaxed_atoms_as_a_job(emt, pool, store):
    """Beside those of the same atoms as they are."""
    jobs = [label_job(emt, copper(0), "as it is"), relaxed_label_job(emt, copper(0), "relaxed")]
    before, after = (record.labels for record in Labeller(pool, store).run(jobs, "both"))
    assert np.abs(before[properties.forces]).max() > 0.1
    assert np.abs(after[properties.forces]).max() < 1e-3
    assert after[properties.energy] < before[properties.energy]


def test_label_of_another_process_is_taken(store, jobs):
    """One that it finished after this run had begun."""
    other = LabelStore(store.path)

    class Shared(AtOnce):
        def submit(self, function, *arguments):
            other.add(record(4))
            return super().submit(function, *arguments)

    numbers = (0, 1, 3, 4, 5)
    records = Labeller(Shared(), store).run(jobs(*numbers), "ensemble")
    assert jobs.calls() == [0, 1, 3, 5]
    assert all(same(r, record(n)) for r, n in zip(records, numbers, strict=True))


def test_nothing_is_computed_that_cannot_be_stored(tmp_path, jobs, no_locks):
    store = LabelStore(tmp_path / "store.jsonl")
    with ThreadPoolExecutor(1) as pool, pytest.raises(LabellingError, match="No locks"):
        Labeller(pool, store).run(jobs(0, 1), "ensemble")
    assert not (tmp_path / "calls").exists()


def _nowhere():
    raise FileNotFoundError("no such program: dft.x")


def test_what_cannot_be_done_here_is_no_record(tmp_path):
    store = LabelStore(tmp_path / "labels.jsonl")
    store.add(record(1))
    with ThreadPoolExecutor(1) as pool, pytest.raises(LabellingError) as error:
        Labeller(pool, store, 1.0).run([Job("h2", "snapshot 5", _nowhere, ())], "test")
    assert "snapshot 5: FileNotFoundError: no such program: dft.x" in str(error.value)
    assert "1 finished labels are safe" in str(error.value)
    assert len(LabelStore(store.path)) == 1


def test_planner_tells_what_is_missing_and_runs_nothing(store, jobs, threads, tmp_path):
    Labeller(threads, store).run(jobs(1, 2), "first")
    (tmp_path / "calls").unlink()
    planner = Planner(store)
    assert [record.key for record in planner.run(jobs(2, 1), "stored")] == ["h2", "h1"]
    with pytest.raises(MissingLabelsError, match="not in the store yet: 2"):
        planner.run(jobs(1, 3, 4, 3), "second")
    missing = {what: [job.key for job in found] for what, found in planner.missing.items()}
    assert missing == {"second": ["h3", "h4"]}
    assert not (tmp_path / "calls").exists()


def test_what_is_told_before_and_while_labels_are_computed(store, threads, caplog):
    """Duration from labels of this run, gap by crystal and temperature, failures."""
    caplog.set_level("INFO", "schnetpack_phonon")
    emt, groups = AseCalculator(EMT), [("Cu", "temperature 300"), None, None]
    jobs = [
        replace(label_job(emt, copper(n), f"copper {n}", group=group), compute=gapped)
        for n, group in enumerate(groups)
    ]
    labeller = Labeller(threads, store)
    labeller.run(jobs[:1], "phonon ensemble")
    labeller.run(jobs, "phonon ensemble")
    labeller.run(jobs, "phonon ensemble")  # nothing new
    lines = [text for text in caplog.messages if text.startswith(("phonon ensemble", "gap"))]
    assert lines[0] == "phonon ensemble: 1 to compute, how long it takes is known after the first"
    assert lines[1].startswith("phonon ensemble: 1 of 1 calculations, ")
    assert lines[1].endswith(", gap of Cu, temperature 300: 1.50 eV (1)")
    assert lines[2] == "gap of Cu: 1.50 eV (1) at temperature 300"
    assert lines[3] == "phonon ensemble: 1 of 3 are in the label store"
    assert re.fullmatch(
        r"phonon ensemble: 2 to compute, about 0:00:0\d by 2 at a time \(.* s each, as those "
        r"before\)",
        lines[4],
    )
    assert lines[5].startswith("phonon ensemble: 3 of 3 calculations, ")
    assert len(lines) == 6


def gapped(atoms):
    return {"band_gap": np.array([1.5])}
