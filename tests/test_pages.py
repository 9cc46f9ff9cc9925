"""Pages for users are short, and commands, options, links and messages on them are right.

Scripts are run in test_examples.py, notebooks in test_python.py.
"""

import ast
import re
import shlex
from collections import defaultdict
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from hydra.errors import HydraException

import schnetpack_phonon
from schnetpack_phonon._hydra import host_configs
from schnetpack_phonon.cli import commands

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
def test_a_page_is_short(page):
    assert len(page.read_text().split()) <= 1500


@pages
def test_choices_of_configs_are_there(page):
    """`data/calculator=cp2k` and the like."""
    choices = re.findall(
        r"(?<![\w.])(experiment|heads|(?:data|callbacks|model)/\w+)=([a-z]\w+)", page.read_text()
    )
    for group, choice in set(choices) - OF_USERS:
        files = [folder / group / f"{choice}.yaml" for folder in (ROOT / "configs", host_configs())]
        assert any(file.is_file() for file in files), f"{page.name}: {group}={choice}"


# Of pages that say how to write them; test_extensions.py, test_examples.py and test_init.py do.
OF_USERS = {("experiment", name) for name in ("mine", "toys", "MgO_CaO", "NAME")}
# What plugins of others are needed for, as the page says.
OF_PLUGINS = ("hydra/sweeper=optuna",)


def typed(page: Path) -> list[str]:
    """Commands of a page: lines of blocks, and words in tables and text that are complete."""
    text = page.read_text().replace("\\\n", " ")
    lines = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)).splitlines()
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", text)]
    lines = [re.sub(r"^\.\.\. ", "spktrain experiment=phonon_antiperovskite ", k) for k in lines]
    lines = [k.replace("experiment=...", "experiment=phonon_antiperovskite") for k in lines]
    complete = r"spktrain .*experiment=|spkphonon (labels )?[a-z]+ (?=\S*[^a-z\s])"
    return [k for k in lines if re.match(complete, k) and not any(o in k for o in OF_PLUGINS)]


@pages
def test_typed_commands_have_these_options(page, compose_train, capsys):
    """What is not run in other tests is read by the parser, and its options by Hydra."""
    for line in typed(page):
        name, *words = [word for word in shlex.split(line, comments=True) if word != "..."]
        if name == "spkphonon":
            try:
                options, words = commands._parser().parse_known_args(words)
            except SystemExit as stop:
                if stop.code:
                    pytest.fail(f"{page.name}: {line}: {capsys.readouterr().err}")
                continue  # --help
            assert not words or options.overrides is not None, f"{page.name}: {line}: {words}"
        choices = [tuple(word.split("=")) for word in words if word.startswith("experiment=")]
        if "--cfg" in words or OF_USERS & set(choices):
            continue
        if "-m" in words:  # the first of each list
            words = [word if "[" in word else word.split(",")[0] for word in words if word != "-m"]
        try:
            compose_train(*words)
        except HydraException as error:
            pytest.fail(f"{page.name}: {line}: {error}")


def test_makefile_and_modules_have_what_is_typed():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found(r"`make (\w+)`") <= {*targets}
    for module in found(r"python -m (tests\.benchmarks[.\w]*)"):
        assert find_spec(module), module


def test_every_option_is_described_in_the_reference():
    """By a docstring or a comment; the site is made with the same code."""
    spec = spec_from_file_location("reference", ROOT / ".ci" / "site" / "reference.py")
    reference = module_from_spec(spec)
    spec.loader.exec_module(reference)
    pages = reference.options(defaultdict(str))
    assert {f"data/{kind}" for kind in ("structure", "calculator", "ensemble")} < {*pages}
    assert "| `data.structure.min_length` | `7.5` | " in pages["data/structure"]


def test_messages_that_are_explained_are_those_of_the_code():
    page = ROOT / "examples" / "troubleshooting.md"
    quoted = re.findall(r"^### `(.+)`$", page.read_text(), re.MULTILINE)
    assert len(quoted) >= 20
    known = "\n".join(messages())
    assert [words for words in quoted if words not in known] == []


def messages():
    """Texts of the code, with … in place of what is filled in."""
    for file in Path(schnetpack_phonon.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[.\d]*[sdg]", "…", node.value).replace("%%", "%")


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
