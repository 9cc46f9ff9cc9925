"""Names that packages give, and modules at their former paths."""

import importlib
import pkgutil
import sys
import warnings

import pytest

import schnetpack_phonon
from schnetpack_phonon._moved import _MOVED, _Finder, _table, names_of

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


@pytest.mark.parametrize("name", ["schnetpack_phonon.nothing", "schnetpack_phonon.common.nothing"])
def test_unknown_module(name):
    with pytest.raises(ModuleNotFoundError, match=name):
        importlib.import_module(name)


def test_finder_is_installed_once():
    schnetpack_phonon._moved.install()
    assert sum(isinstance(finder, _Finder) for finder in sys.meta_path) == 1
