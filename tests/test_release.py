"""The version and the requirements of the package are the same wherever they stand."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import schnetpack_phonon

ROOT = Path(__file__).parents[1]
# Names of conda-forge; its torch comes with SchNetPack.
CONDA = {"matplotlib": "matplotlib-base", "tblite": "tblite-python", "torch": None}


@pytest.fixture(scope="module")
def recipe():
    return yaml.safe_load((ROOT / ".ci" / "conda" / "recipe.yaml").read_text())


def test_one_version(recipe):
    version = schnetpack_phonon.__version__
    assert recipe["context"]["version"] == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    minor = version.rpartition(".")[0]
    assert re.search(rf"(?m)^## {re.escape(minor)}\b", (ROOT / "CHANGELOG.md").read_text())


def test_recipe_needs_what_the_package_needs(recipe):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = {
        f"{name} {bound}"
        for line in project["dependencies"]
        for name, bound in [re.match(r"([\w-]+)([^;]*)", line).groups()]
        for name in [CONDA.get(name, name)]
        if name
    }
    python, *run = recipe["requirements"]["run"]
    assert set(run) == expected
    least = recipe["context"]["python_min"]
    assert python.replace("${{ python_min }}", least) == f"python {project['requires-python']}"
    assert recipe["build"]["python"]["entry_points"] == [
        f"{name} = {target}" for name, target in project["scripts"].items()
    ]
