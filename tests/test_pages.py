"""Pages for users lead to what is there and name commands that there are."""

import re
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "examples").glob("*.md"))]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


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
        re.findall(r"\b(experiment|(?:data|callbacks|model)/\w+)=([a-z]\w+)", page.read_text())
    )
    for group, choice in choices - {("experiment", "mine")}:
        try:
            compose_train("experiment=phonon_antiperovskite", f"{group}={choice}")
        except ConfigCompositionException as error:
            pytest.fail(f"{page.name}: {group}={choice}: {error}")
