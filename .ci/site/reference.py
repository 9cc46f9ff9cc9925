"""Pages made from the configs, the commands and the docstrings."""

import argparse
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import groupby, takewhile
from pathlib import Path
from pkgutil import resolve_name, walk_packages
from types import ModuleType
from typing import Any

import yaml

import schnetpack_phonon
from schnetpack_phonon.cli import commands

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
GROUPS = {
    "experiment": "What is trained on what: the first thing to choose.",
    "heads": "Models with their losses.",
    "data": "The data module with all its parts.",
    "data/structure": "The crystals.",
    "data/phonons": "Force constants and what is done with imaginary modes.",
    "data/ensemble": "How displaced structures are drawn.",
    "data/calculator": "The code that labels.",
    "data/elastic": "Elastic tensors as labels.",
    "data/executor": "Where labels are computed.",
    "data/loading": "How batches are made.",
    "data/shipped": "The labels of the package; chosen by calculator and structure.",
    "data/soft_modes": "Limits of soft modes; chosen by structure and phonons.",
    "callbacks": "Figures, tables and starts of a run.",
    "hydra/job_logging": "What is shown on the terminal and in `cli.log`.",
    "hydra/sweeper": "Several runs by one command (`-m`).",
}


def write(folder: Path) -> dict[str, list[str]]:
    """Writes all pages; their names, by the heading of the navigation under which they belong."""
    packages = ["schnetpack_phonon", *_packages()]
    places = _places(packages[1:] + packages[:1])
    made: dict[str, str] = {}
    for group, page in options(places).items():
        made[f"config_{group.replace('/', '_')}"] = page
    made["command_line"] = _command_line()
    made["citing"] = _citing(yaml.safe_load((ROOT / "CITATION.cff").read_text()))
    for package in packages:
        made[f"api_{package}"] = _api(package, places)
    made["config_all"] = _contents("All options", "`???` must be given.", made, "config_")
    made["api_all"] = _contents("Python interface", "Public names by folder.", made, "api_")
    folder.mkdir(parents=True)
    for name, text in made.items():
        (folder / f"{name}.md").write_text(text)
    return {
        "Reference": ["reference/config_all", "reference/command_line", "reference/api_all"],
        "Help": ["reference/citing", "CHANGELOG"],
    }


def _contents(title: str, about: str, made: dict[str, str], kind: str) -> str:
    below = "\n".join(name for name in made if name.startswith(kind))
    return f"# {title}\n\n{about}\n\n```{{toctree}}\n:maxdepth: 1\n\n{below}\n```\n"


def _packages() -> list[str]:
    found = walk_packages(schnetpack_phonon.__path__, "schnetpack_phonon.")
    return [module.name for module in found if module.ispkg and dir(import_module(module.name))]


def _places(packages: list[str]) -> dict[str, str]:
    """Where each public name is documented, by the module that it comes from."""
    found: dict[str, str] = {}
    for package in packages:
        module = import_module(package)
        for name in dir(module):
            found.setdefault(_origin(module, name), f"{package}.{name}")
    return found


def _origin(package: ModuleType, name: str) -> str:
    return f"{getattr(getattr(package, name), '__module__', package.__name__)}.{name}"


def _api(package: str, places: dict[str, str]) -> str:
    """Public names of a package: documented here, or named with a link to where they are."""
    module = import_module(package)
    text, elsewhere = "", ""
    for name in dir(module):
        thing, place = getattr(module, name), places[_origin(module, name)]
        if place == f"{package}.{name}":
            kind = "class" if isinstance(thing, type) else "function" if callable(thing) else "data"
            text += f".. auto{kind}:: {place}\n\n"
        else:
            elsewhere += f"* :any:`{place}`\n"
    about = inspect.getdoc(module)
    links = f"On other pages:\n\n{elsewhere}\n" if elsewhere else ""
    title = package.removeprefix("schnetpack_phonon.")
    return f"# {title}\n\n```{{eval-rst}}\n{about}\n\n{links}{text}```\n"


def _command_line() -> str:
    """Help pages of the command and of all commands under it."""
    text = f"# Command line\n\nHelp pages of `spkphonon {schnetpack_phonon.__version__}`.\n"
    for parser in _parsers(commands._parser()):
        text += f"\n## {parser.prog}\n\n```text\n{parser.format_help().strip()}\n```\n"
    return text


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _parsers(below)


def _citing(citation: dict) -> str:
    """How to cite, as BibTeX."""
    text = f"# How to cite\n\n{citation['message']}\n\n```bibtex\n"
    for work in (citation, *citation["references"]):
        people = [one.get("family-names") or f"{{{one['name']}}}" for one in work["authors"]]
        fields = {
            "title": f"{{{work['title']}}}",
            "author": " and ".join(people),
            "version": work.get("version"),
            "note": work.get("notes"),
        }
        kind, name = ("misc", people[0]) if work.get("notes") else ("software", work["title"])
        lines = ",\n".join(f"  {key} = {{{value}}}" for key, value in fields.items() if value)
        text += f"@{kind}{{{name},\n{lines}\n}}\n"
    return text + "```\n\nModels are SchNetPack's: cite it, too, as its documentation says.\n"


def options(places: Mapping[str, str]) -> dict[str, str]:
    """A page for each group of configs.

    Args:
        places: where public names are documented, by the module that they come from.

    Raises:
        ValueError: for a group or an option that is not described.
    """
    groups = {str(file.parent.relative_to(CONFIGS)) for file in CONFIGS.rglob("*.yaml")}
    if groups != GROUPS.keys():
        raise ValueError(f"groups of configs are {groups}; described are {set(GROUPS)}")
    return {group: _group(group, about, places) for group, about in GROUPS.items()}


def _group(group: str, about: str, places: Mapping[str, str]) -> str:
    """All choices of a group of configs with their options."""
    text = f"# {group}\n\n{about}\n"
    for file in sorted((CONFIGS / group).glob("*.yaml")):
        text += f"\n## {file.stem}\n\n`{group}={file.stem}`\n\n{_choice(file, places)}"
    return text


def _choice(file: Path, places: Mapping[str, str]) -> str:
    """Comment, class and options of a config; the file itself where it sets those of others."""
    text = file.read_text()
    lines = text.removeprefix("# @package _global_\n").strip().splitlines()
    comment = [line[1:] for line in takewhile(lambda line: line.startswith("#"), lines)]
    parts = list(_parts(yaml.safe_load(text) or {}))
    said = _comment(comment)
    if not parts or file.parent.name in ("experiment", "heads"):
        return f"{said}```yaml\n{text.strip()}\n```\n"
    return said + "".join(_options(path, options, text, places) for path, options in parts)


def _comment(lines: list[str]) -> str:
    """Text, with what looks like an option as code; indented lines are commands."""
    said = ""
    for command, some in groupby(lines, lambda line: line.startswith("  ")):
        text = "\n".join(line.strip() for line in some)
        words = re.sub(r"([\w./@+\[{\"]*[=_][^\s`]*[^\s`,.:;)])", r"`\1`", text)
        said += f"```\n{text}\n```\n\n" if command else f"{words}\n\n"
    return said


def _parts(config: Any, path: str = "") -> Iterator[tuple[str, dict]]:
    """Sections of a config that name a class of this package, with their places."""
    if isinstance(config, dict):
        if _is_ours(config):
            yield path, config
        for key, value in config.items():
            yield from _parts(value, f"{path}{key}.")


def _is_ours(config: Any) -> bool:
    target = config.get("_target_") if isinstance(config, dict) else None
    return str(target).startswith("schnetpack_phonon")


def _options(path: str, options: dict, text: str, places: Mapping[str, str]) -> str:
    """The class, and a table: option, value, meaning."""
    thing = resolve_name(options["_target_"])
    summary = inspect.cleandoc(thing.__doc__).splitlines()[0]
    said = f"{{any}}`{places[f'{thing.__module__}.{thing.__name__}']}`: {_markdown(summary)}\n\n"
    meanings = _meanings(thing)
    rows = []
    for key, value in options.items():
        if _is_ours(value) or key in ("_target_", "_partial_", "defaults"):
            continue
        comment = re.search(rf"^ *{key}: .*?  # (.*)$", text, re.MULTILINE)
        meaning = meanings.get(key) or (comment and comment[1])
        if not meaning:
            raise ValueError(f"{options['_target_']} has no description of its argument {key}")
        rows.append((f"`{path}{key}`", f"`{_plain(value)}`", meaning.rstrip(".")))
    if rows:
        said += "| option | value | |\n|---|---|---|\n"
    return said + "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"


def _plain(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _meanings(thing: Any) -> dict[str, str]:
    """Descriptions of arguments in the docstrings of a function, or of a class and its bases."""
    found: dict[str, str] = {}
    for owner in reversed(inspect.getmro(thing) if isinstance(thing, type) else [thing]):
        text = f"{inspect.getdoc(owner)}\n"
        section = re.search(r"^(?:Args|Attributes):\n((?: .*\n|\n)+)", text, re.MULTILINE)
        entry = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n     +.*)*)", re.MULTILINE)
        for names, meaning in entry.findall(section[1] if section else ""):
            found |= dict.fromkeys(names.split(", "), _markdown(" ".join(meaning.split())))
    return found


def _markdown(text: str) -> str:
    """Inline markup of docstrings as that of pages."""
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    text = re.sub(r":\w+:`~?\.?([^`]*)`", r"`\1`", text)
    return text.replace("``", "`").replace("|", "\\|")
