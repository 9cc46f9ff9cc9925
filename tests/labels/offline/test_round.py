"""Out, run elsewhere, back in: nothing lost, nothing taken twice."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from schnetpack.data import ASEAtomsData

from schnetpack_phonon.data.card import write_card
from schnetpack_phonon.data.export import write_extxyz
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.test_sets import read_test_set
from schnetpack_phonon.labels.offline import collect
from schnetpack_phonon.labels.results import Status
from schnetpack_phonon.labels.store import LabelStore
from tests.calculators.spin_fixtures import SPINS
from tests.data.data_fixtures import rows
from tests.labels.offline.offline_fixtures import contents, statuses
from tests.labels.offline_fixtures import (
    CODE,
    Here,
    calculations,
    export_from,
    make_generation,
    run,
    spoil,
)

DIVERGED = (r" \*\*\* SCF run converged", " *** WARNING :: SCF run NOT converged")


CUT_OFF = (r"PROGRAM ENDED.*", "")


def test_loop_ends_with_the_database_that_one_run_makes(tmp_path):
    """Ideal crystal and displacements first, then snapshots; no program is there to be run."""
    ensemble = PhononEnsemble([300], n_snapshots=3, seed=1)
    elsewhere = make_generation(tmp_path / "elsewhere", ensemble)
    root = tmp_path / "out"
    assert "ideal crystals: 1 labels" in (text := export_from(elsewhere, root, CODE))
    assert "force constants: 2 labels" in text
    assert len(run(root)) == 3
    assert collect(root).complete
    assert "phonon ensemble: 3 labels" in export_from(elsewhere, root, CODE)
    assert len(run(root)) == 3
    assert statuses(collect(root)) == [Status.STORED] * 3 + [Status.FINISHED] * 3
    assert export_from(elsewhere, root, CODE).startswith("nothing to export")
    elsewhere.ensure()
    here = make_generation(tmp_path / "here", ensemble, Here(kpoints=[1, 1, 1]))
    here.ensure()
    assert rows(elsewhere.datapath) == rows(here.datapath)
    assert export_from(elsewhere, root, CODE).startswith("nothing to export")


def test_gaps_of_each_spin_reach_the_database(root, generation, tmp_path):
    """And its card, a test set, extended XYZ and batches; NaN for spins that do not differ."""
    *_, last = run(root)
    output = root / last / "label.out"
    output.write_text(SPINS["CP2K"]["label.out"](output.read_text(), 0.25))
    assert collect(root).complete
    generation.ensure()
    path = generation.datapath
    without, with_both = read_rows(path)
    (gap,) = without.data["band_gap"]  # the same levels in both outputs, up to the second spin
    assert np.isnan(without.data["band_gap_spin"]).all()
    np.testing.assert_allclose(with_both.data["band_gap_spin"], [[gap, gap]], atol=1e-6)
    np.testing.assert_allclose(with_both.data["band_gap"], gap - 0.25, atol=1e-6)
    assert "Different spins: 1 of 2 structures" in write_card(path)
    write_extxyz(path, tmp_path / "rows.extxyz")
    for file in (path, tmp_path / "rows.extxyz"):
        cells = read_test_set(file).labels["band_gap_spin"]
        assert cells.isna().tolist() == [True, False]
        np.testing.assert_allclose(cells[1], [[gap, gap]], atol=1e-6)
    data = ASEAtomsData(str(path), load_properties=["band_gap_spin"])
    assert data[1]["band_gap_spin"].shape == (1, 2)


def test_repeated_commands_change_nothing(root, generation):
    before = contents(root)
    assert export_from(generation, root, CODE).splitlines()[1:] == [
        "random ensemble: 2 labels are missing",
        f"0 inputs written, 3 folders to be run: {root / 'todo.txt'}",
        "in each of them: no-such-cp2k -i label.inp -o label.out > label.log 2>&1",
    ]
    assert contents(root) == before
    run(root)
    assert "3 have been run: spkphonon collect" in export_from(generation, root, CODE)
    assert collect(root).complete
    before = contents(root), generation.label_store.read_bytes()
    assert collect(root).complete
    assert (contents(root), generation.label_store.read_bytes()) == before


def test_script_runs_what_is_to_be_done(root, generation):
    """With the arguments of the code, in each folder, and what it prints kept there."""
    script = root / "run_all.sh"
    script.write_text(script.read_text().replace("no-such-cp2k", "echo"))
    first, *others = (root / "todo.txt").read_text().split()
    (root / "todo.txt").write_text("\n".join(others))
    subprocess.run(["sh", script], check=True)
    assert not (root / first / "label.log").exists()
    logs = [(root / folder / "label.log").read_text() for folder in others]
    assert logs == ["-i label.inp -o label.out\n"] * 2
    export_from(generation, root, CODE)
    assert "echo" in script.read_text()  # it is the user's, once it is there


def test_part_of_the_outputs_is_enough_to_go_on(root):
    first, second, _ = run(root)
    (root / first / "label.out").unlink()
    spoil(root, second, *CUT_OFF)
    summary = collect(root)
    assert statuses(summary) == [Status.NOT_RUN, Status.BROKEN, Status.FINISHED]
    assert "cut off: the calculation was killed" in str(summary)
    assert not summary.complete
    assert (root / "todo.txt").read_text().split() == [first, second]
    run(root)
    assert statuses(collect(root)) == [Status.FINISHED, Status.FINISHED, Status.STORED]


def test_next_mixing_where_the_density_does_not_converge(root, generation):
    """In a folder of its own; the first that is finished counts."""
    first, *_ = run(root)
    spoil(root, first, *DIVERGED)
    assert statuses(collect(root))[0] is Status.UNCONVERGED
    assert not (root / "todo.txt").read_text()
    export_from(generation, root, CODE)
    (again,) = run(root)
    assert again != first
    assert calculations(root)[again].mixing == 0.2
    assert "ALPHA 0.2" in (root / again / "label.inp").read_text()
    summary = collect(root)
    assert statuses(summary) == [Status.FINISHED] + [Status.STORED] * 2
    assert summary.results[0].calculation.folder == again


def test_run_that_ran_out_of_time_is_run_again_as_it_is(root, generation):
    """Another mixing is of no use; it can be given up like one that was cut off."""
    first, *_ = run(root)
    spoil(
        root,
        first,
        r" \*\*\* SCF run",
        " *** CP2K exceeded requested execution time:\n SCF run NOT",
    )
    summary = collect(root)
    assert statuses(summary)[0] is Status.OUT_OF_TIME
    assert "out of time" in str(summary)
    assert (root / "todo.txt").read_text().split() == [first]
    assert "0 inputs written, 1 folders to be run" in export_from(generation, root, CODE)
    assert run(root) == [first]
    assert statuses(collect(root))[0] is Status.FINISHED


def test_no_mixing_converges(root, generation):
    """Another snapshot takes the place, as it does where the program is run here."""
    *_, last = run(root)
    spoil(root, last, *DIVERGED)
    collect(root)
    export_from(generation, root, CODE)
    (again,) = run(root)
    spoil(root, again, *DIVERGED)
    summary = collect(root)
    assert summary.complete
    assert statuses(summary)[-1] is Status.GIVEN_UP
    store = LabelStore(generation.label_store)
    assert "did not converge" in store[summary.results[-1].calculation.key].error
    assert collect(root).complete
    export_from(generation, root, CODE)
    (other,) = run(root)
    assert "snapshot 2" in calculations(root)[other].description
    assert collect(root).complete
    generation.ensure()


def test_failed_ones_are_given_up_when_it_is_said(root, generation):
    """And a success that comes later is taken."""
    first, *_ = run(root)
    spoil(root, first, *CUT_OFF)
    key = calculations(root)[first].key
    assert not collect(root).complete
    assert key not in LabelStore(generation.label_store)
    assert collect(root, give_up=True).complete
    assert "cut off" in LabelStore(generation.label_store)[key].error
    before = generation.label_store.read_bytes()
    assert collect(root).complete
    assert generation.label_store.read_bytes() == before
    (root / "todo.txt").write_text(first)
    run(root)
    assert statuses(collect(root))[0] is Status.FINISHED
    assert LabelStore(generation.label_store)[key].labels


def test_running_calculations_are_not_given_up_before_they_begin(root):
    assert statuses(collect(root, give_up=True)) == [Status.NOT_RUN] * 3


@pytest.mark.parametrize("n_moves", [0, 1])
def test_export_that_was_killed_is_completed(tmp_path, generation, monkeypatch, n_moves):
    """Between manifest and folders, and between folders."""
    root, moved = tmp_path / "out", []

    def rename(path, target):
        if len(moved) == n_moves:
            raise KeyboardInterrupt
        moved.append(path.replace(target))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            export_from(generation, root, CODE)
    assert statuses(collect(root)) == [Status.NOT_RUN] * 3
    export_from(generation, root, CODE)
    assert len(run(root)) == 3
    assert collect(root).complete
    assert {file.name for file in root.iterdir()} == {
        *calculations(root),
        ".manifest.lock",
        "manifest.json",
        "run_all.sh",
        "todo.txt",
    }


def test_full_disk_leaves_nothing_half_written(tmp_path, generation, full_disk):
    with full_disk(1000), pytest.raises(OSError, match="too large"):
        export_from(generation, tmp_path / "out", CODE)
    assert not list((tmp_path / "out").glob("[!.]*"))
    export_from(generation, tmp_path / "out", CODE)
    assert len(run(tmp_path / "out")) == 3
