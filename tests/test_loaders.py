"""What opens files: nothing in the package can be made to run what a file holds."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from yaml.constructor import ConstructorError

from schnetpack_phonon.calculators.output import xml_root
from schnetpack_phonon.common.errors import PhononError
from schnetpack_phonon.evaluation.test_sets import read_test_set
from schnetpack_phonon.structures.files import read_structure

PACKAGE = Path(__file__).parents[1] / "schnetpack_phonon"
# What can run programs, and the only places that may use it.
ALLOWED = {
    "load_model": {"models/trained/weights.py"},  # a pickle, after Trust.check
    "instantiate": {"cli/generate.py", "cli/init.py"},  # the configuration that a user typed
    "import_module": {"_moved.py", "labels/manifest.py", "models/trained/targets.py"},
    "run": {"calculators/external_code.py"},  # subprocess
    "Popen": set(),
    "eval": set(),
    "exec": set(),
    "system": set(),
    "read_pickle": set(),
    "unsafe_load": set(),
    "full_load": set(),
    "loads": {"json"},
    "load": {"json", "np", "OmegaConf", "yaml", "Graphs", "graphs", "cls"},
    "dumps": {"json", "pickle"},  # writing is safe
}
FILES = sorted(PACKAGE.rglob("*.py"))


def calls(path: Path):
    """Of functions by name: name, what stands before it, and the call."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute):
                owner = function.value
                yield function.attr, owner.id if isinstance(owner, ast.Name) else "", node
            elif isinstance(function, ast.Name):
                yield function.id, None, node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_unsafe_loader_is_called(path):
    place = str(path.relative_to(PACKAGE))
    for name, owner, call in calls(path):
        options = {one.arg: ast.unparse(one.value) for one in call.keywords}
        assert options.get("allow_pickle", "False") == "False", ast.unparse(call)
        assert "shell" not in options, ast.unparse(call)
        if name in ("eval", "exec") and owner is not None:
            continue  # of a model
        if name == "run" and owner != "subprocess":
            continue
        if name in ("load", "loads", "dumps"):
            assert owner in ALLOWED[name] or (name, owner) == ("load", ""), ast.unparse(call)
            if owner == "yaml":
                assert "loader" in options.get("Loader", ""), ast.unparse(call)
        elif name in ALLOWED:
            assert place in ALLOWED[name], ast.unparse(call)


class Evil:
    def __reduce__(self):
        import os

        return os.mkdir, ("evil",)


def yaml_file(path: Path) -> None:
    path.write_text("a: !!python/object/apply:os.mkdir [evil]\n")


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (yaml_file, OmegaConf.load),
        (lambda path: pd.to_pickle(Evil(), path), lambda path: np.load(path, allow_pickle=False)),
        (lambda path: pd.to_pickle(Evil(), path), read_structure),
        (lambda path: pd.to_pickle(Evil(), path.with_suffix(".traj")), None),
        (lambda path: path.with_suffix(".py").write_text("import os; os.mkdir('evil')"), None),
        (lambda path: pd.to_pickle(Evil(), path.with_suffix(".db")), None),
    ],
    ids=["yaml", "npz", "structure", "trajectory", "python", "database"],
)
def test_hostile_files_are_refused(write, read, tmp_path):
    write(tmp_path / "file")
    (path,) = tmp_path.iterdir()
    readers = [read] if read else [read_structure, read_test_set]
    for one in readers:
        with pytest.raises((PhononError, ValueError, ConstructorError)):
            one(path)
    assert not Path("evil").exists()


LAUGHS = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 9))  # 10^8 times "ha"


@pytest.mark.parametrize(
    "document",
    [
        f'<!DOCTYPE x [<!ENTITY a0 "ha">{LAUGHS}]><x>&a8;</x>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "secret">]><x>&a;</x>',
    ],
    ids=["expansion", "external"],
)
def test_entities_of_xml_are_not_followed(document, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "file.xml").write_text(document)
    with pytest.raises(Exception, match=r"amplification|undefined entity"):
        xml_root(tmp_path / "file.xml")
