"""Bad inputs of every command: one message and the exit code of the help page, nothing written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import ase.db
import ase.io
import pytest
import torch
from ase.build import bulk
from schnetpack import cli as host

from schnetpack_phonon.models.heads import Intensive
from tests.cli.command_fixtures import outcome
from tests.evaluation.comparison.comparison_fixtures import write_run
from tests.labels.offline_fixtures import export_from, make_generation
from tests.models.model_fixtures import potential, thermal

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are using `torch.load`:FutureWarning"),
]
COMMAND = Path(sys.executable).parent / "spkphonon"
EMT = (
    "experiment=phonon_antiperovskite data/structure=file data.structure.path=POSCAR "
    "data.structure.supercell=[2,2,2] data.structure.relax=false data/calculator=ase "
    "data.calculator.factory._target_=ase.calculators.emt.EMT "
    "data.ensemble.n_snapshots=2 "
    "data.executor._target_=concurrent.futures.ThreadPoolExecutor "  # starts no process
    "~data.executor.threads_per_worker data.executor.max_workers=1 "
)
TRAJECTORY = "data/ensemble=file data.ensemble.n_snapshots=1 data.ensemble.temperature=300 "
MODEL = "--model model --trust --no-control --n-steps 1 --ideal ideal.extxyz "
REPORT, THERMAL = "report run ", "thermal run -n 2 -t 0 "


@pytest.fixture(scope="module")
def good(tmp_path_factory, built):
    """A folder with a small input of each kind, all of them in order."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "configs").mkdir()
    (folder / "data").mkdir()
    shutil.copy(built.datapath, folder / "data" / "alloys.db")
    shutil.copy(Path(built.datapath).with_name("labels.jsonl"), folder / "labels.jsonl")
    write_run(folder / "run", folder / "data" / "alloys.db", 1, range(8), [9])
    export_from(make_generation(folder), folder / "exported")
    (folder / "other").mkdir()
    (folder / "other" / "file").write_text("of the user's\n")
    torch.save(potential(Intensive(16, "band_gap")), folder / "model")
    ideal, _ = thermal()
    ideal.write(folder / "ideal.extxyz")
    ase.io.write(folder / "x.extxyz", [thermal(seed)[1] for seed in range(2)])
    with ase.db.connect(folder / "foreign.db") as database:
        database.write(bulk("Cu"))
    bulk("Cu", cubic=True).write(folder / "POSCAR")
    (folder / "text").write_text("something else entirely\n")
    (folder / "empty").write_text("")
    (folder / "bytes").write_bytes(bytes(range(256)) * 8)
    return folder


@pytest.fixture
def here(good, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    shutil.copytree(good, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PWD", str(folder))
    return folder


def content(folder: Path) -> dict[str, str]:
    """Digest of every file but locks, runs of Hydra and finished labels."""
    left = (".lock", "labels.jsonl")  # and predictions, in cross_tests
    files = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return {
        str(p): sha256((folder / p).read_bytes()).hexdigest()
        for p in files
        if not p.name.endswith(left) and not {"runs", "cross_tests"} & {*p.parts}
    }


def spoil(path: str, how: str) -> None:
    """``half`` of a file, ``old=>new`` in it, or ``=NAME`` in its place."""
    file = Path(path)
    if how == "half":
        file.write_bytes(file.read_bytes()[: int(0.55 * file.stat().st_size)])
    elif how.startswith("="):
        shutil.copy(how[1:], file)
    else:
        old, _, new = how.partition("=>")
        text = file.read_text()
        assert re.search(old, text)
        file.write_text(re.sub(old, lambda _: new, text, count=1))


# Command line; how a file is spoilt before; exit code; what the message names.
TABLE = [
    ("labels list nowhere", "", 1, "no label store at .*nowhere"),
    ("labels list other", "", 1, "other"),
    ("labels list bytes", "", 1, "bytes"),
    ("labels list text", "", 1, "text"),
    ("labels list empty", "", 0, ""),
    ("labels list labels.jsonl", "labels.jsonl|half", 0, ""),
    ("labels list labels.jsonl", "labels.jsonl|\\{=>[", 1, "labels.jsonl"),
    ("labels merge labels.jsonl nowhere", "", 1, "no label store at .*nowhere"),
    ("labels merge new.jsonl nowhere", "", 1, "no label store at .*nowhere"),
    ("labels merge labels.jsonl text", "", 1, "text"),
    ("labels merge other labels.jsonl", "", 1, "other"),
    ("labels merge no/folder/x.jsonl labels.jsonl", "", 0, ""),
    ("labels export labels.jsonl out.doc", "", 1, "expected .extxyz, .db or .csv"),
    ("labels export labels.jsonl x.extxyz", "", 1, "x.extxyz exists already"),
    ("labels export labels.jsonl no/folder.extxyz", "", 1, "no/"),
    ("labels export --failed labels.jsonl out.csv", "", 1, "nothing to export"),
    ("labels prune labels.jsonl --finished", "", 2, "say --code of which code"),
    ("labels prune labels.jsonl --code=VASP", "", 1, "no record of 'VASP'"),
    ("labels prune text", "", 1, "text"),
    ("card nowhere.db", "", 1, "nowhere.db"),
    ("card text", "", 1, "text"),
    ("card foreign.db", "", 1, "foreign.db"),
    ("card other", "", 1, "other"),
    ("card data/alloys.db", "data/alloys.db|half", 1, "alloys.db"),
    ("card data/alloys.db", "data/alloys.db|=empty", 1, "alloys.db"),
    ("extxyz nowhere.db out.extxyz", "", 1, "nowhere.db"),
    ("extxyz foreign.db out.extxyz", "", 1, "foreign.db"),
    ("extxyz data/alloys.db no/folder.extxyz", "", 1, "no/"),
    ("extxyz data/alloys.db other", "", 1, "other"),
    ("extxyz data/alloys.db data/alloys.db", "", 1, "alloys.db"),
    ("extxyz data/alloys.db out.extxyz", "data/alloys.db|half", 1, "alloys.db"),
    ("collect nowhere", "", 1, "no .*manifest.json"),
    ("collect text", "", 1, "no .*manifest.json"),
    ("collect exported", "exported/manifest.json|half", 1, "manifest.json is damaged"),
    ("collect exported", "exported/manifest.json|=bytes", 1, "manifest.json is damaged"),
    ("collect exported", 'exported/manifest.json|"version": 1=>"version": 9', 1, "version 9"),
    ("collect exported", 'exported/manifest.json|\\[\\[\\d=>[[NaN, "', 1, "damaged"),
    ("collect exported --label-store=labels.jsonl", "", 3, ""),
    ("collect exported --label-store=labels.jsonl --results=nowhere.xml", "", 3, ""),
    ("collect exported --label-store=other", "", 1, "other"),
    ("init nowhere --code=xtb", "", 1, "no structure file at .*nowhere|nowhere"),
    ("init bytes --code=xtb", "", 1, "bytes"),
    ("init POSCAR --code=xtb --force-constants=nowhere.yaml", "", 1, "nowhere.yaml"),
    ("init POSCAR --code=xtb --cluster=many", "", 2, "--cluster is many"),
    ("export", "", 2, "FOLDER"),
    ("export seed=1", "", 2, "FOLDER comes before the overrides"),
    (f"export other {EMT}", "", 1, "other contains other files|ExternalCode|expected"),
    ("import seed=1", "", 2, "files come before the overrides"),
    (f"import nowhere.xyz {EMT}", "", 1, "no structure file at .*nowhere.xyz"),
    (f"import x.extxyz {EMT}", "", 1, "no label was stored"),
    (
        f"generate {EMT} data.structure.path=nowhere",
        "",
        1,
        "generate: data.structure: no structure file at .*nowhere",
    ),
    (f"generate {EMT}", "POSCAR|half", 1, "cannot read .*POSCAR"),
    (f"generate {EMT}", "POSCAR|3\\.6=>nan", 1, "POSCAR"),
    (f"generate {EMT} data.structure.path=bytes", "", 1, "cannot read .*bytes"),
    (f"generate {EMT} data.structure.supercell=???", "", 1, "no value of data.structure.supercell"),
    (
        "generate experiment=phonon_antiperovskite data/structure=file data/calculator=espresso",
        "",
        1,
        "add data.calculator.ecutrho=VALUE .*data.structure.path=VALUE",
    ),
    (f"generate {EMT} data.structure.supercell=big", "", 1, "supercell"),
    (f"generate {EMT} data.structure.name=a/b", "", 1, "data.structure.name"),
    (f"generate {EMT} data.structure.nmae=a", "", 1, "nmae"),
    (f"generate {EMT} data.ensemble.n_snapshots=0", "", 1, "n_snapshots is 0"),
    (f"generate {EMT} data.ensemble.n_snapshots=many", "", 1, "n_snapshots"),
    (f"generate {EMT} data.ensemble.temperatures=[nan]", "", 1, "nan"),
    (f"generate {EMT} data.ensemble.seed=x", "", 1, "seed"),
    (f"generate {EMT} data.datapath=other", "", 1, "data.datapath is 'other'; expected"),
    (f"generate {EMT} data.datapath=HERE/foreign.db", "", 1, "foreign.db"),
    (f"generate {EMT} data.datapath=/dev/full/x.db", "", 1, "/dev/full"),
    (f"generate {EMT} data.label_store=HERE/other", "", 1, "other"),
    (f"generate {EMT} data.calculator.factory._target_=no.such", "", 1, "no"),
    (f"generate {EMT} data/phonons=phonopy data.phonons.path=nowhere", "", 1, "nowhere"),
    (f"generate {EMT} data/phonons=phonopy data.phonons.path=text", "", 1, "text"),
    (f"generate {EMT} data/phonons=phonopy data.phonons.path=bytes", "", 1, "bytes"),
    (f"generate {EMT} {TRAJECTORY} data.ensemble.path=nowhere", "", 1, "no trajectory at .*nowh"),
    (f"generate {EMT} {TRAJECTORY} data.ensemble.path=text", "", 1, "cannot read .*text"),
    (f"generate {EMT} {TRAJECTORY} data.ensemble.path=x.extxyz", "", 1, "has 5 atoms"),
    ("generate experiment=nothing", "", 1, "nothing"),
    ("generate data=[", "", 1, "no viable alternative at input '\\['"),
    ("report nowhere", "", 1, "nowhere"),
    ("report text", "", 1, "text"),
    ("report other", "", 1, "other"),
    (REPORT, "run/config.yaml|=bytes", 1, "config.yaml|run"),
    (REPORT, "run/config.yaml|=empty", 1, "config.yaml|run"),
    (REPORT, "run/split.npz|half", 1, "split.npz"),
    (REPORT, "run/best_model|=text", 1, "best_model"),
    (REPORT, "data/alloys.db|half", 1, "alloys.db"),
    (f"{REPORT} --out text", "", 1, "text is a file; expected a folder"),
    ("report nowhere --out text/page", "", 1, "text is a file; expected a folder"),
    ("thermal nowhere --out text", "", 1, "text is a file; expected a folder"),
    (f"attribute nowhere {MODEL} --out text", "", 1, "text is a file; expected a folder"),
    (f"{REPORT} --test nowhere", "", 1, "nowhere"),
    (f"{REPORT} --test text", "", 1, "text"),
    ("thermal nowhere", "", 1, "nowhere"),
    (f"{THERMAL} -t hot", "", 2, "hot"),
    (f"{THERMAL} -t -5", "", 2, "temperatures"),
    (f"{THERMAL} -t nan", "", 1, "temperature is nan K"),
    (f"{THERMAL} -n 1", "", 2, "snapshots"),
    (THERMAL, "run/best_model|=bytes", 1, "best_model"),
    (THERMAL, "run/config.yaml|=text", 1, "config.yaml|run"),
    ("attribute x.extxyz", "", 2, "--model"),
    (f"attribute nowhere {MODEL}", "", 1, "nowhere"),
    (f"attribute text {MODEL}", "", 1, "text"),
    (f"attribute foreign.db {MODEL}", "", 1, "atoms|crystal"),
    (f"attribute x.extxyz {MODEL}", "x.extxyz|half", 1, "x.extxyz"),
    (f"attribute x.extxyz {MODEL}", "model|=text", 1, "model"),
    (f"attribute x.extxyz {MODEL}", "model|half", 1, "model holds no model.*OSError"),
    (f"attribute x.extxyz {MODEL}", "ideal.extxyz|=POSCAR", 1, "ideal.extxyz"),
    ("attribute x.extxyz --model model --kind mask", "", 1, "give --trust"),
    (f"attribute x.extxyz {MODEL} --output nothing", "", 1, "nothing"),
    (f"attribute x.extxyz {MODEL} --indices 7", "", 1, "no index 7"),
    (f"attribute x.extxyz {MODEL} --indices one", "", 2, "one"),
    (f"attribute x.extxyz {MODEL} --split text", "", 1, "text"),
    (f"attribute x.extxyz {MODEL} --split run/split.npz", "run/split.npz|half", 1, "split.npz"),
    (REPORT, "run/best_model.npz|half", 1, "best_model.npz"),
    (f"attribute x.extxyz {MODEL} --max-structures 0", "", 1, "structures"),
    (f"attribute x.extxyz {MODEL} --method guess", "", 1, "guess"),
    (f"attribute x.extxyz {MODEL} --device tpu", "", 2, "--device is tpu; expected cpu or cuda"),
    (f"attribute x.extxyz {MODEL} --n-steps 0", "", 1, "n.steps"),
    (f"attribute x.extxyz {MODEL} --out text", "", 1, "text"),
    ("bands run", "", 2, "STRUCTURE"),
    ("bands nowhere x.extxyz", "", 1, "no file nowhere"),
    ("bands run x.extxyz", "", 1, "has no learned Hamiltonian"),
    ("bands run x.extxyz --window low high", "", 2, "low"),
    ("bands run x.extxyz --out text", "", 1, "text is a file; expected a folder"),
]


def train(monkeypatch, *overrides: str) -> None:
    """Runs spktrain in this process; seeds stay as they are."""
    monkeypatch.setattr(host, "seed_everything", lambda **_: None)
    monkeypatch.setattr("sys.argv", ["spktrain", *overrides])
    host.train()


@pytest.mark.parametrize(
    ("line", "spoilt", "code", "named"),
    [
        pytest.param(*row, id=f"{k}-{row[0].replace(EMT, '')} {row[1]}".strip())
        for k, row in enumerate(TABLE)
    ],
)
def test_bad_input(here, monkeypatch, capsys, line, spoilt, code, named):
    if spoilt:
        spoil(*spoilt.split("|", 1))
    before = content(here)
    found, said = outcome(monkeypatch, capsys, line)
    assert found == code, said
    assert re.search(named, said)
    assert "Traceback" not in said
    if code in (1, 2):
        assert content(here) == before


TRAINING = [
    ("data.structure.path=nowhere", "no structure file at .*nowhere"),
    ("data.structure.supercell=???", "no value of data.structure.supercell"),
    ("data.ensemble.n_snapshots=0", "n_snapshots is 0"),
    ("data.datapath=other", "data.datapath is 'other'; expected"),
    ("data.calculator.factory._target_=no.such", "no.such"),
    ("data.nmae=1", "nmae"),
    ("data=nothing", "nothing"),
]


@pytest.mark.parametrize(("option", "named"), TRAINING)
def test_bad_input_of_spktrain(here, monkeypatch, capsys, option, named):
    """With our message among those of Hydra, before a model is made."""
    before = content(here)
    code, said = outcome(monkeypatch, capsys, f"{EMT} {option}", train)
    assert code == 1
    assert re.search(named, said)
    assert content(here) == before


WRITING = [
    ("card data/alloys.db", "alloys_card|Permission|large"),
    ("extxyz data/alloys.db out.extxyz", "out.extxyz"),
    ("labels export labels.jsonl out.csv", "out.csv"),
    ("labels export labels.jsonl out.db", "out.db"),
    ("labels merge new.jsonl labels.jsonl", "new.jsonl"),
    ("labels prune labels.jsonl --code=ase --finished", "labels.jsonl"),
    ("report run --out page", "page"),
    (f"attribute x.extxyz {MODEL} --out page", "page"),
]


@pytest.mark.parametrize(("line", "named"), WRITING, ids=[line for line, _ in WRITING])
@pytest.mark.parametrize("place", ["read-only", "full"])
def test_place_that_cannot_be_written(
    good, here, read_only, full_disk, monkeypatch, capsys, place, line, named
):
    folder, forbidden = (
        (here, full_disk(10)) if place == "full" else (read_only.folder, read_only())
    )
    if place == "read-only":
        shutil.copytree(good, folder, dirs_exist_ok=True)
        monkeypatch.chdir(folder)
    before = content(folder)
    with forbidden:
        code, said = outcome(monkeypatch, capsys, line)
    assert code == 1, said
    assert re.search(named, said)
    assert "Traceback" not in said
    assert content(folder) == before


def shell(line: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {k: v for k, v in os.environ.items() if k != "HOME"} | environment
    line = line.replace("spkphonon", str(COMMAND))
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=kept)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("spkphonon labels list labels.jsonl >&-", 0, ""),
        ("spkphonon labels list labels.jsonl >/dev/full", 1, "labels list: .*No space left"),
        ("spkphonon labels list nowhere 2>&-", 1, ""),
        ("(spkphonon labels list labels.jsonl; echo $? >code) | true; exit $(cat code)", 1, "pipe"),
        ("spkphonon card data/alloys.db >card", 0, ""),
    ],
)
def test_terminals(here, line, code, said):
    """Closed ones, full disks behind them, and no home."""
    done = shell(line)
    assert done.returncode == code, done.stderr
    assert re.search(said, done.stderr)
    assert not re.search("Traceback|Exception ignored", done.stderr)
