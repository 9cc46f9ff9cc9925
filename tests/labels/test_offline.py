"""Out, run elsewhere, back in: nothing lost, nothing taken twice, nothing of another structure."""

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from ase.io import read, write
from schnetpack.data import ASEAtomsData

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.common.errors import ManifestError, UnavailableError
from schnetpack_phonon.data.card import write_card
from schnetpack_phonon.data.export import write_extxyz
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.test_sets import read_test_set
from schnetpack_phonon.labels.finite_strain import FiniteStrain
from schnetpack_phonon.labels.offline import collect
from schnetpack_phonon.labels.results import Status
from schnetpack_phonon.labels.store import LabelStore
from tests.calculators.cp2k_fixtures import needs_cp2k
from tests.calculators.spin_fixtures import SPINS
from tests.data.data_fixtures import rows
from tests.labels.offline_fixtures import (
    CODE,
    Here,
    calculations,
    cp2k,
    export_from,
    make_generation,
    run,
    spoil,
)

DIVERGED = (r" \*\*\* SCF run converged", " *** WARNING :: SCF run NOT converged")
PAIRS = partial(LennardJones, sigma=2.1, rc=6.0)
CUT_OFF = (r"PROGRAM ENDED.*", "")


def statuses(summary) -> list[Status]:
    return [result.status for result in summary.results]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def generation(tmp_path):
    return make_generation(tmp_path)


@pytest.fixture
def root(tmp_path, generation):
    """The ideal crystal and two snapshots, exported."""
    export_from(generation, tmp_path / "out", CODE)
    return tmp_path / "out"


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


def test_folder_of_another_calculator_is_refused(root, generation, tmp_path):
    before = contents(root)
    for other, what in (
        (cp2k(cutoff=300), "settings"),
        (cp2k(version="2024.1"), "code version .CP2K 2023.1; now CP2K 2024.1"),
    ):
        message = f"exported with another {what}.*: export to another folder"
        with pytest.raises(ManifestError, match=message):
            export_from(make_generation(tmp_path, calculator=other), root, _code(other))
    with pytest.raises(ManifestError, match="another label store"):
        export_from(make_generation(tmp_path / "other"), root, CODE)
    assert contents(root) == before


def _code(calculator: CP2K) -> dict:
    return CODE | {"cutoff": calculator.cutoff, "version": calculator.version}


def test_folder_of_something_else_is_refused(tmp_path, generation):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(ManifestError, match="thesis contains other files: export to a new folder"):
        export_from(generation, tmp_path / "thesis", CODE)
    with pytest.raises(ManifestError, match=r"no .*thesis/manifest\.json"):
        collect(tmp_path / "thesis")
    assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_relaxations_are_refused(tmp_path):
    generation = make_generation(tmp_path, relax=True)
    message = r"relax AlP: a relaxation is a series .* data\.structure\.relax=false"
    with pytest.raises(ValueError, match=message):
        export_from(generation, tmp_path / "out", CODE)
    assert not (tmp_path / "out").exists()


def test_strained_structures_follow_the_snapshots(tmp_path):
    """Clamped ions are labels like others; relaxations of ions are refused."""
    ensemble = RandomEnsemble([0.001], n_snapshots=2, seed=1)
    elastic = FiniteStrain(relaxed_ions=True)
    generation, root = make_generation(tmp_path, ensemble, elastic=elastic), tmp_path / "out"
    for n_labels in (3, 24):
        export_from(generation, root, CODE)
        assert len(run(root)) == n_labels
        assert collect(root).complete
    with pytest.raises(ValueError, match=r"strain \+xx, .* data\.elastic\.relaxed_ions=false"):
        export_from(generation, root, CODE)


def test_version_must_be_known(tmp_path):
    generation = make_generation(tmp_path, calculator=cp2k(version=None))
    message = r"cannot run 'no-such-cp2k'.* only the cluster .* set data\.calculator\.version"
    with pytest.raises(UnavailableError, match=message):
        export_from(generation, tmp_path / "out", CODE)


def test_label_store_elsewhere(root, generation, tmp_path):
    run(root)
    other = tmp_path / "other" / "labels.jsonl"
    with pytest.raises(ManifestError, match=r"no folder for the label store .* --label-store"):
        collect(root, label_store=other)
    other.parent.mkdir()
    assert collect(root, label_store=other).complete
    assert len(LabelStore(other)) == 3
    assert not generation.label_store.exists()


@pytest.mark.parametrize("name", ["result.extxyz", "result.db", "result.json", "result.traj"])
def test_results_of_any_code(tmp_path, name):
    """Structures go out, files that ASE reads come back; a pair potential stands for the code."""
    ensemble = RandomEnsemble([0.1], n_snapshots=2, seed=1)
    elsewhere = make_generation(tmp_path / "elsewhere", ensemble, AseCalculator(PAIRS))
    root = tmp_path / "out"
    assert "in each of them" not in export_from(elsewhere, root, {"_target_": "not.looked.at"})
    with pytest.raises(ManifestError, match=r"structures without inputs: .* --results=result"):
        collect(root)
    assert statuses(collect(root, name)) == [Status.NOT_RUN] * 3
    for folder in (root / "todo.txt").read_text().split():
        atoms = read(root / folder / "structure.extxyz")
        atoms.calc = PAIRS()
        atoms.get_stress()
        write(root / folder / name, atoms)
    assert collect(root, name).complete
    elsewhere.ensure()
    here = make_generation(tmp_path / "here", ensemble, AseCalculator(PAIRS))
    here.ensure()
    for one, other in zip(rows(elsewhere.datapath), rows(here.datapath), strict=True):
        assert one["provenance"] == other["provenance"]
        for key in ("energy", "forces", "stress"):
            np.testing.assert_allclose(one[key], other[key], atol=1e-7)


@needs_cp2k
def test_installed_program_elsewhere_and_here(tmp_path):
    """What it leaves behind in the exported folders are the labels that it gives here."""
    calculator = CP2K(kpoints=[1, 1, 1], added_mos=4)
    generation = make_generation(tmp_path, RandomEnsemble([0.1], n_snapshots=1, seed=1), calculator)
    code = {
        "_target_": "schnetpack_phonon.calculators.cp2k.CP2K",
        "kpoints": [1, 1, 1],
        "added_mos": 4,
    }
    root = tmp_path / "out"
    export_from(generation, root, code)
    subprocess.run(["sh", root / "run_all.sh"], check=True)
    assert collect(root).complete
    generation.ensure()
    (row,) = rows(generation.datapath)
    snapshot = list(calculations(root).values())[-1].atoms
    for key, value in calculator.label(snapshot).items():
        np.testing.assert_allclose(row[key], value, atol=1e-6, err_msg=key)


def renamed_store(root: Path, place: str) -> None:
    text = (root / "manifest.json").read_text()
    content = json.loads(text) | {"label_store": place}
    (root / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize("place", [".profile", "../labels.jsonl", "/nowhere/labels.jsonl", "out/l"])
def test_a_manifest_does_not_choose_any_place_for_labels(root, tmp_path, monkeypatch, place):
    """Only a .jsonl file of the project; the user may name any other."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    run(root)
    renamed_store(root, str(tmp_path / "project" / place))
    before = contents(tmp_path)
    with pytest.raises(ManifestError, match=r"names the label store .* with --label-store"):
        collect(root)
    assert contents(tmp_path) == before
    assert collect(root, label_store=Path("mine.jsonl")).complete
    renamed_store(root, str(tmp_path / "project" / "theirs.jsonl"))
    assert collect(root).complete
    assert Path("theirs.jsonl").read_bytes() == Path("mine.jsonl").read_bytes()


def test_links_in_an_exported_folder_lead_nowhere(tmp_path, generation):
    root, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    export_from(generation, root, CODE)
    for name in ("run_all.sh", ".part"):
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(outside / name)
    (outside / ".part").mkdir()
    for folder in calculations(root):
        shutil.rmtree(root / folder)
    export_from(generation, root, CODE)
    assert [file.name for file in outside.rglob("*")] == [".part"]
    assert not (root / "run_all.sh").is_symlink()


def test_the_script_runs_folders_of_any_name(root):
    """Also a command that reads its standard input."""
    for name in ("a b", "$(touch evil)", "*"):
        (root / name).mkdir()
    (root / "todo.txt").write_text("a b\n$(touch evil)\n*\n")
    script = (root / "run_all.sh").read_text()
    (root / "run_all.sh").write_text(
        script.replace("no-such-cp2k -i label.inp -o label.out", "cat")
    )
    subprocess.run(["sh", root / "run_all.sh"], check=True)
    assert not list(root.rglob("evil"))
    assert len(list(root.glob("*/label.log"))) == 3
