"""Names that packages give, and modules at their former paths."""

import importlib
import pkgutil
import sys
import warnings
from pathlib import Path

import pytest

import schnetpack_phonon
from schnetpack_phonon._moved import _MOVED, _RENAMED, _Finder, _table, names_of
from tests.calculators.code_fixtures import CODES

NAMES_OF_01 = Path(__file__).parent / "data" / "version_0.1" / "public_names.txt"
# Helpers within the package, without an equal now.
GONE = {
    "bond_command.run",
    "cli.USAGE",
    "database.read_displaced",
    *(f"external_code.{n}" for n in ("check_places", "cut_off", "no_output", "printed")),
    "external_code.kpoint_mesh",
}
PACKAGES = [
    module.name
    for module in pkgutil.walk_packages(schnetpack_phonon.__path__, "schnetpack_phonon.")
    if module.ispkg and module.name.split(".")[1] != "configs"
]


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_give_the_names_that_they_list(name):
    package = importlib.import_module(name)
    assert dir(package) == sorted(set(dir(package)))
    for public in dir(package):
        try:
            assert getattr(package, public) is not None
        except ModuleNotFoundError as error:  # a script that runs where GPAW is installed
            assert error.name == "gpaw"  # noqa: PT017


def test_names_of():
    get, listed = names_of("schnetpack_phonon.common", "files: locked digests: hash_of")
    assert listed() == ["hash_of", "locked"]
    assert get("locked") is importlib.import_module("schnetpack_phonon.common.files").locked
    with pytest.raises(AttributeError, match="no attribute 'lost'"):
        get("lost")


def test_former_path_gives_the_same_object(monkeypatch):
    monkeypatch.delitem(sys.modules, "schnetpack_phonon.manifest", raising=False)
    with pytest.warns(FutureWarning) as warned:
        module = importlib.import_module("schnetpack_phonon.manifest")
    text = "schnetpack_phonon.manifest is now schnetpack_phonon.labels.manifest and "
    assert str(warned[0].message).startswith(text)
    place = importlib.import_module("schnetpack_phonon.labels.manifest")
    assert module.Manifest is place.Manifest


@pytest.mark.parametrize("old", sorted(_table(_MOVED).keys() - {"_gpaw_script"}))
def test_former_modules_are_somewhere(old, monkeypatch):
    monkeypatch.delitem(sys.modules, f"schnetpack_phonon.{old}", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        assert importlib.import_module(f"schnetpack_phonon.{old}")


def test_public_names_of_version_01_are_found():
    gone = set()
    for old, names in _table(NAMES_OF_01.read_text()).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            module = importlib.import_module(f"schnetpack_phonon.{old}")
            gone |= {f"{old}.{name}" for name in names if not hasattr(module, name)}
    assert gone == GONE


@pytest.mark.parametrize("old", _table(_RENAMED))
def test_renamed(old):
    module, _, name = old.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        former = importlib.import_module(f"schnetpack_phonon.{module}")
    with pytest.warns(FutureWarning) as warned:
        assert getattr(former, name) is not None
    new = _table(_RENAMED)[old][0]
    assert str(warned[0].message) == f"{former.__name__}.{name} is now schnetpack_phonon.{new}"
    assert warned[0].filename == __file__


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_former_readers_of_outputs_need_no_options(code):
    folder, now = code.stored("gamma"), code.make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        former = importlib.import_module(f"schnetpack_phonon.{code.config}_output")
        found = former.read_output(folder, code.atoms)
        assert former.read_version(folder) == now.read_version(folder)
    expected = now.read_output(folder, code.atoms)
    assert found.keys() == expected.keys()
    assert found["band_gap_gamma"] == expected["band_gap_gamma"]


@pytest.mark.parametrize("name", ["schnetpack_phonon.nothing", "schnetpack_phonon.common.nothing"])
def test_unknown_module(name):
    with pytest.raises(ModuleNotFoundError, match=name):
        importlib.import_module(name)


def test_finder_is_installed_once():
    schnetpack_phonon._moved.install()
    assert sum(isinstance(finder, _Finder) for finder in sys.meta_path) == 1
