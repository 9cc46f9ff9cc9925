"""A page holds its tables, figures and data, and needs nothing from elsewhere."""

import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pandas as pd
import pytest
from matplotlib.figure import Figure

from schnetpack_phonon.common.page import (
    Picture,
    Section,
    Table,
    strings,
    write_markdown,
    write_page,
)

DATA = pd.DataFrame({"name": ["a<b", "c"], "value": [1.23456, float("nan")]})


def picture(name="curve") -> Picture:
    figure = Figure()
    figure.subplots().plot([1, 2, 3])
    return Picture(name, "What it is & what it shows", figure, DATA)


@pytest.fixture
def written(tmp_path):
    rows = strings(DATA, {"value": ".2f"})
    sections = [
        Section("Claim", ["a < b & c"], claim=True),
        Section(
            "Evidence",
            ["text"],
            [
                picture(),
                Table("numbers", rows, DATA),
                Table("more", rows, DATA, "All", folded=True),
            ],
        ),
    ]
    return tmp_path / "page", write_page(tmp_path / "page", "A title", sections)


class Tags(HTMLParser):
    """Open tags, sources and text."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.sources, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.sources += [value for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_is_whole(written):
    text = written[1]["page"].read_text()
    tags = Tags(text)
    assert tags.open == []
    assert "a < b & c" in tags.text
    assert "a<b" in tags.text
    assert "1.23" in tags.text
    assert tags.text.count("–") == 2  # what is missing, in two tables
    assert re.search("(?s)<details><summary>All</summary>.*a&lt;b.*</details>", text)
    assert "min-width:461px;max-width:614px" in text  # 6.4 inches; less is moved sideways
    assert "width=device-width" in text
    assert "@media print" in text


def test_figures_are_inside(written):
    (source,) = Tags(written[1]["page"].read_text()).sources
    head, _, content = source.partition(",")
    assert head == "data:image/svg+xml;base64"
    assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")


def test_files_beside_it(written):
    folder, places = written
    assert (folder / "figures" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "figures" / "curve.svg").read_text()
    for name in ("curve", "numbers"):
        pd.testing.assert_frame_equal(pd.read_csv(folder / "data" / f"{name}.csv"), DATA)
    text = places["table"].read_text()
    assert text.startswith("# A title\n")
    for link in re.findall(r"\]\((.*?)\)", text):
        assert (folder / link).is_file()
    assert r"| a\<b | 1.23  |" in text


def test_page_is_the_same_each_time(tmp_path):
    pages = [
        write_page(tmp_path / name, "t", [Section("s", [], [picture()])])["page"].read_bytes()
        for name in ("one", "other")
    ]
    assert pages[0] == pages[1]


def test_pipes_do_not_end_a_cell(tmp_path):
    rows = pd.DataFrame({"name": ["a|b"]})
    places = write_page(tmp_path, "t", [Section("s", [], [Table("x", rows, rows)])])
    assert "a\\|b" in places["table"].read_text()


def test_markdown_alone(tmp_path):
    """Sections without a title and tables and figures without numbers; figures lie beside it."""
    rows = pd.DataFrame({"a": ["b", "c" * 50]})
    figure = picture().figure
    sections = [Section("", ["text"], [Table("x", rows), Picture("curve", "A curve", figure)])]
    text = write_markdown(tmp_path / "card.md", "t", sections)
    assert text == (tmp_path / "card.md").read_text()
    assert text.startswith("# t\n\ntext\n\n| a ")
    assert text.endswith("|\n\n![A curve](curve.png)\n")
    assert max(map(len, text.splitlines())) == 50 + 4
    assert {path.name for path in tmp_path.iterdir()} == {"card.md", "curve.png"}


def test_markdown_escapes_names(tmp_path):
    """A script in the name of a run, a crystal or a bond; what is no tag stays as it is."""
    name = "<script>alert(1)</script>|x\ny"
    sections = [Section(name, [name, "a < b"], [Table("t", pd.DataFrame({name: [name]}))])]
    text = write_markdown(tmp_path / "page.md", name, sections)
    assert not re.search(r"(?<!\\)<[a-z/]", text)
    cell = r"\<script>alert(1)\</script>\|x y"
    assert f"| {cell} |\n" in text
    assert "a < b" in text
