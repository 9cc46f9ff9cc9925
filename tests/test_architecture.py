"""The order of the folders, what must stay light, and former import paths."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "schnetpack_phonon"
# Imports run down only.
FOLDERS = ["cli", "evaluation", "attribution", "models", "data"]  # these may load torch
FOLDERS += ["ensembles", "phonons", "labels", "calculators", "structures", "common"]
HEAVY = {  # folders that alone may load what, when they are imported
    "torch": {*FOLDERS[:5]},
    "phonopy": {"structures", "phonons"},
    "hydra": {"cli", "evaluation"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def folder(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def imports(path: Path) -> set[str]:
    """Modules that a file imports, at its top or in its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_down_only(path):
    if folder(path) not in FOLDERS:
        return
    above = FOLDERS[: FOLDERS.index(folder(path))]
    used = {name.split(".")[1] for name in imports(path) if name.startswith("schnetpack_phonon.")}
    assert not used & set(above)
    for library, users in HEAVY.items():
        if library in {name.split(".")[0] for name in imports(path)}:
            assert folder(path) in users, library


def test_no_circle_of_files():
    """Every file can be put after all those that it imports."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    left = {name: imports(path) & names.keys() - {name} for name, path in names.items()}
    while left:
        free = [name for name, needs in left.items() if not needs & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


def test_light_modules_load_nothing_heavy():
    """Imported one after the other: the first after which it is there is named."""
    light = [path for path in FILES if folder(path) in FOLDERS[5:] and "script" not in path.stem]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in light]
    code = f"""
import sys
from importlib import import_module
for module in {modules}:
    import_module(module.removesuffix(".__init__"))
    heavy = {{"torch", "hydra"}}
    assert not heavy & set(sys.modules), f"{{module}} loads {{heavy & set(sys.modules)}}"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_house_stays_small():
    """At most 10 files in a folder, 300 lines in a file, 4 files at the root."""
    for place in {path.parent for path in FILES}:
        assert len(list(place.glob("*.py"))) <= (4 if place == PACKAGE else 10), place
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 300, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_is_tested_in_its_folder(path):
    if path.stem.startswith("_"):  # packages, and what only subprocesses run
        return
    folder = ROOT / "tests" / path.parent.relative_to(PACKAGE)
    named = folder / f"test_{path.name}"
    tests = [named] if named.exists() else sorted(folder.rglob("test_*.py"))
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    package = module.rpartition(".")[0]
    for file in tests:
        uses = {name for name in imports(file) if name in (module, package) or name[:6] == "tests."}
        names = [getattr(node, "name", "") for node in ast.walk(ast.parse(file.read_text()))]
        if uses and any(name.startswith("test_") for name in names):
            return
    pytest.fail(f"no test of {module} in {folder}")
