"""Pages for users lead to what is there, and name commands, configs and imports that there are."""

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException

from tests.cli.command_fixtures import call

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "examples").glob("*.md"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def found(pattern: str) -> set:
    return {match for page in PAGES for match in re.findall(pattern, page.read_text())}


@pages
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_every_page_and_picture_is_linked():
    text = "\n".join(page.read_text() for page in PAGES)
    files = [*PAGES[1:], *(ROOT / "examples" / "figures").glob("*")]
    assert [file.name for file in files if f"/{file.name})" not in text] == []


@pages
def test_choices_of_configs_are_there(page, compose_train):
    """`data/calculator=cp2k` and the like."""
    choices = set(
        re.findall(
            r"\b(experiment|heads|(?:data|callbacks|model)/\w+)=([a-z]\w+)", page.read_text()
        )
    )
    for group, choice in choices - {("experiment", "mine"), ("experiment", "toys")}:
        try:
            compose_train("experiment=phonon_antiperovskite", f"{group}={choice}")
        except ConfigCompositionException as error:
            pytest.fail(f"{page.name}: {group}={choice}: {error}")


def test_commands_are_there(monkeypatch, capsys):
    commands = found(r"\bspkphonon ((?:labels )?[a-z]+) (?=[^a-z]|data|runs|frames)")
    assert len(commands) > 10
    for command in commands:
        with pytest.raises(SystemExit) as stop:
            call(monkeypatch, *command.split(), "--help")
        assert stop.value.code == 0, capsys.readouterr().err


def test_imports_and_targets_are_there():
    imports = found(r"from (schnetpack_phonon[\w.]*) import ([\w, ]+)")
    names = {(module, name) for module, several in imports for name in several.split(", ")}
    names |= found(r"_target_=(schnetpack_phonon[\w.]*)\.(\w+)")
    names |= found(r"`(schnetpack_phonon\.[\w.]+)\.(\w+)`")
    assert len(names) > 10
    for module, name in names:
        try:
            there = hasattr(import_module(module), name) or find_spec(f"{module}.{name}")
            assert there, f"{module}.{name}"
        except ModuleNotFoundError:
            pytest.fail(f"no module {module}")
