"""spkphonon, called as a user calls it."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import ase.io
import pytest
import torch

import schnetpack_phonon
from schnetpack_phonon.data.reading import read_provenance
from schnetpack_phonon.labels.store import LabelStore
from schnetpack_phonon.models.heads import Intensive
from tests.cli.command_fixtures import answer, call
from tests.data.data_fixtures import labelled_copper
from tests.evaluation.comparison.comparison_fixtures import databases, write_run
from tests.labels.offline_fixtures import CODE, IDEAL, run
from tests.models.model_fixtures import potential, thermal

COMMAND = Path(sys.executable).parent / "spkphonon"
EMT = (
    "experiment=phonon_antiperovskite",
    "data/calculator=ase",
    "data.calculator.factory._target_=ase.calculators.emt.EMT",
    "data.structure.names=[Cu3PdAu]",
    "+data.structure.lattice_constants.Cu3PdAu=4.35",
    "data.ensemble.temperatures=[300]",
    "data.executor.max_workers=1",
)


def spkphonon(folder, *arguments):
    return subprocess.run([COMMAND, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def say(tmp_path, monkeypatch, capsys):
    """Arguments -> exit code, stdout and stderr, in this process, which has imported torch."""
    (tmp_path / "configs").mkdir()
    monkeypatch.setenv("PWD", str(tmp_path))
    return partial(answer, monkeypatch, capsys)


def test_generate_makes_the_database_and_refuses_other_settings(tmp_path, say):
    made = spkphonon(tmp_path, "generate", *EMT, "data.ensemble.n_snapshots=3")
    assert made.returncode == 0, made.stderr
    path = tmp_path / "data" / "antiperovskite_phonon.db"
    assert len(read_provenance(path)) == 3
    content = path.read_bytes()
    code, _, error = say("generate", *EMT, "data.ensemble.n_snapshots=4")
    assert code != 0
    assert "ensemble.n_snapshots: 3 in the database, 4 requested" in error
    assert path.read_bytes() == content


def test_failed_labels_are_told_by_summary_and_exit_status(say):
    code, said, error = say("generate", *EMT, "data.calculator.time_limit=1e-9")
    assert code == 1
    summary = r"5 calculations: 0 in the store, 4 computed in .*, 3 failed, 1 not done\n    3 x C"
    assert re.search(summary, said)
    assert "spkphonon generate: force constants: 2 of 3 calculations failed" in error


def test_bad_input_says_what_is_wrong_and_writes_nothing(tmp_path, say):
    code, _, error = say("generate", EMT[0], "data.structure.names=[Ag3SX]")
    assert code != 0
    assert "Ag3SX" in error
    assert "Ag3SBr" in error
    assert not (tmp_path / "data").exists()


def test_export_and_collect_until_the_database_is_made(tmp_path, monkeypatch, capsys, say):
    """On a machine without the code."""
    IDEAL.write(tmp_path / "POSCAR")
    options = (
        EMT[0],
        "data/ensemble=random",
        "data.ensemble.amplitudes=[0.1]",
        "data.ensemble.n_snapshots=1",
        "data/structure=file",
        "data.structure.path=POSCAR",
        "data.structure.supercell=[1,1,1]",
        "data.structure.relax=false",
        "data/calculator=cp2k",
        *(f"data.calculator.{key}={value}" for key, value in CODE.items() if key[0] != "_"),
        "data.executor.max_workers=1",
    )
    options = tuple(option.replace("=2023.1", "='2023.1'") for option in options)
    code, said, error = say("export", "out", *options)
    assert code == 0, error
    assert "2 inputs written, 2 folders to be run" in said
    assert collect(monkeypatch, tmp_path / "out") == 3
    assert "2  not run yet" in capsys.readouterr().out
    run(tmp_path / "out")
    assert collect(monkeypatch, tmp_path / "out") == 0
    assert "2  finished, now in the label store" in capsys.readouterr().out
    code, _, error = say("generate", *options)
    assert code == 0, error
    assert len(read_provenance(tmp_path / "data" / "AlP_random.db")) == 1


def test_collect_from_a_folder_that_was_not_exported(tmp_path, monkeypatch):
    message = r"spkphonon collect: no .*manifest\.json: expected a folder"
    assert re.match(message, collect(monkeypatch, tmp_path))
    assert not list(tmp_path.iterdir())


def collect(monkeypatch, *arguments):
    """The exit code, or the message that it comes with."""
    try:
        call(monkeypatch, "collect", *arguments)
    except SystemExit as stop:
        return stop.code
    return 0


def test_report_prints_the_page_of_a_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "report.md").write_text("# a run\n")
    call(monkeypatch, "report", str(tmp_path))
    assert capsys.readouterr().out == "# a run\n\n"
    with pytest.raises(SystemExit, match="nowhere"):
        call(monkeypatch, "report", "nowhere")


def test_report_of_several_runs_is_a_page(tmp_path, monkeypatch, capsys):
    (path, *_) = databases(tmp_path).values()
    for seed in (1, 2):
        write_run(tmp_path / "runs" / str(seed), path, seed, range(8), [9])
    call(monkeypatch, "report", "runs", "--out", "page")
    assert "nothing to compare with" in capsys.readouterr().out
    assert (tmp_path / "page" / "index.html").is_file()


def test_label_stores(tmp_path, monkeypatch, capsys):
    for name, number in (("a.jsonl", 0), ("b.jsonl", 1)):
        LabelStore(name).add(labelled_copper(number))

    def said(*arguments):
        call(monkeypatch, "labels", *arguments)
        return capsys.readouterr().out

    assert "2 records, 1 of them new" in said("merge", "a.jsonl", "b.jsonl")
    assert "1 finished labels, 1 failed" in said("list", "a.jsonl")
    assert "1 records" in said("export", "a.jsonl", "a.extxyz")
    assert "1 records" in said("export", "--failed", "a.jsonl", "failed.csv")
    assert "dropped 1 failed" in said("prune", "a.jsonl")
    assert "1 finished labels, kept 0" in said("prune", "a.jsonl", "--finished", "--code=ase 3.25")
    with pytest.raises(SystemExit, match=r"spkphonon labels list: no label store at .*nowhere"):
        said("list", "nowhere")
    with pytest.raises(SystemExit):
        said("prune", "b.jsonl", "--finished")
    assert "say --code of which code" in capsys.readouterr().err
    assert len(LabelStore("b.jsonl")) == 1


COMMANDS = ["init", "generate", "export", "collect", "import", "card", "extxyz"]
COMMANDS += ["labels", "attribute", "report", "thermal"]
PAGES = [[], *([name] for name in COMMANDS)]
PAGES += [["labels", name] for name in ("list", "merge", "export", "prune")]


@pytest.mark.parametrize("command", PAGES, ids=" ".join)
def test_help_of_every_command(command, monkeypatch, capsys):
    """Ours also where Hydra's options are taken."""
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *command, *(["seed=1", "--help"] if command == ["generate"] else ["-h"]))
    assert stop.value.code == 0
    page = capsys.readouterr().out
    for text in (f"spkphonon {' '.join(command)}".rstrip(), "\nexample:\n", "\nexit codes:\n"):
        assert text in page
    assert all(name in page for name in COMMANDS) or command


def test_without_arguments_it_is_the_help(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="0"):
        call(monkeypatch)
    assert "spkphonon generate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "near"),
    [
        ("reprot runs", "report"),
        ("labels lst data", "list"),
        ("report runs --tets=md.extxyz", "--test"),
        ("extxyz a.db a.xyz b.xyz", ""),
        ("attribute x --model m --kind maks", "mask"),
        ("generate seed=1 --dryrun", "--dry-run"),
        ("generate seed=1 --cgf job", "--cfg"),
        ("export seed=1 out", ""),
        ("card", ""),
    ],
)
def test_wrong_command_lines_name_what_is_near(command, near, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *command.split())
    assert stop.value.code == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("spkphonon")
    assert ("did you mean" in last) == bool(near)
    assert f"did you mean {near}?" in last or not near


def test_hydra_s_own_pages_are_there(tmp_path, say):
    code, config, _ = say("generate", EMT[0], "seed=3", "--cfg", "job")
    assert code == 0
    assert "seed: 3" in config
    groups = spkphonon(tmp_path, "generate", "--config-help")
    assert "data/calculator: ase, cp2k" in groups.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["configs"]


def test_interrupted(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("schnetpack_phonon.labels.maintenance.summary", interrupt)
    with pytest.raises(SystemExit, match="130"):
        call(monkeypatch, "labels", "list", "a.jsonl")


def test_help_imports_nothing_heavy():
    code = """
import sys
from schnetpack_phonon.cli import main
sys.argv = ["spkphonon", "--version"]
try:
    main()
except SystemExit:
    assert not {"numpy", "pandas", "torch", "hydra", "ase", "argcomplete"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"spkphonon {schnetpack_phonon.__version__}\n"


def test_shell_completion(tmp_path):
    """As the shell asks for it: the answer comes on file descriptor 8."""
    pytest.importorskip("argcomplete", reason="needs the extra 'completion'")
    environment = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_SUPPRESS_SPACE": "1", "IFS": "\n"}
    environment |= {"COMP_LINE": "spkphonon labels pr", "COMP_POINT": "19"}
    environment |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "answer")}
    subprocess.run([COMMAND], env=os.environ | environment, check=True)
    assert (tmp_path / "answer").read_text().strip() == "prune"


def test_progress_is_told_where_there_is_no_terminal(tmp_path):
    """As lines of the log, which Hydra is not there to show."""
    torch.save(potential(Intensive(16, "band_gap")), tmp_path / "best_model")
    ideal, displaced = thermal(1)
    ase.io.write(tmp_path / "ideal.extxyz", ideal)
    ase.io.write(tmp_path / "x.extxyz", displaced)
    options = ["x.extxyz", "--model", "best_model", "--ideal", "ideal.extxyz", "--trust"]
    done = spkphonon(tmp_path, "attribute", *options)
    assert re.search(
        r"(?m)^[-\d]+ [:\d]+ bond attribution: 2 of 2 structures, \S+ per \w+, took 0:0",
        done.stderr,
    )


def test_quiet(tmp_path, say):
    """Of a command of Hydra, on the terminal; the log file of the run has all."""
    code, said, error = say("generate", "-q", *EMT, "data.ensemble.n_snapshots=3")
    assert code == 0, error
    assert "3 structures" not in said
    (log,) = tmp_path.glob("runs/*/*.log")
    assert "3 structures" in log.read_text()
