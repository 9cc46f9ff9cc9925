"""Folders of other calculations, stores elsewhere, results of any code, links and names."""

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from ase.io import read, write

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.common.errors import ManifestError, UnavailableError
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.labels.finite_strain import FiniteStrain
from schnetpack_phonon.labels.offline import collect
from schnetpack_phonon.labels.results import Status
from schnetpack_phonon.labels.store import LabelStore
from tests.calculators.cp2k_fixtures import needs_cp2k
from tests.data.data_fixtures import rows
from tests.labels.offline.offline_fixtures import contents, statuses
from tests.labels.offline_fixtures import (
    CODE,
    calculations,
    cp2k,
    export_from,
    make_generation,
    run,
)

PAIRS = partial(LennardJones, sigma=2.1, rc=6.0)


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
