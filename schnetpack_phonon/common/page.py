"""Pages of text, tables and figures: one HTML file that holds everything, and Markdown."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.common.style import save_figure

_WIDEST = 40  # characters that cells of Markdown tables are padded to


@dataclass(frozen=True)
class Picture:
    """A figure with a caption and its numbers.

    Attributes:
        name: of its files.
        caption: one or two sentences.
        figure: drawn.
        data: the numbers in it; None where they are not written.
    """

    name: str
    caption: str
    figure: Figure
    data: pd.DataFrame | None = None


@dataclass(frozen=True)
class Table:
    """A table of strings with its numbers.

    Attributes:
        name: of its file.
        rows: what is shown, all strings.
        data: the numbers, all digits; None where they are not written.
        caption: what it holds.
        folded: whether readers have to open it; it is not printed on paper.
    """

    name: str
    rows: pd.DataFrame
    data: pd.DataFrame | None = None
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """Text, tables and figures, in this order, below a heading.

    Attributes:
        title: the heading; none if empty.
        paragraphs: plain text.
        items: tables and figures.
        claim: whether the text holds the main results of the page.
    """

    title: str
    paragraphs: Sequence[str] = ()
    items: Sequence[Picture | Table] = field(default=())
    claim: bool = False


def write_page(folder: Path, title: str, sections: Sequence[Section]) -> dict[str, Path]:
    """Writes ``index.html``, ``report.md``, ``figures/*.png|svg`` and ``data/*.csv``.

    Args:
        folder: made if it does not exist.
        title: of the page.
        sections: in order.

    Returns:
        ``page`` and ``table``: the HTML and the Markdown file.
    """
    # Here, as most commands write no page.
    from jinja2 import Environment, PackageLoader

    for name in ("figures", "data"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    places = {"page": folder / "index.html", "table": folder / "report.md"}
    write_markdown(places["table"], title, sections, "figures")
    svg = {}
    for item in (item for section in sections for item in section.items):
        if item.data is not None:
            with replacing(folder / "data" / f"{item.name}.csv") as part:
                item.data.to_csv(part, index=False)
        if isinstance(item, Picture):
            content = io.BytesIO()
            with rc_context({"svg.hashsalt": item.name}):  # the same file each time
                item.figure.savefig(content, format="svg", metadata={"Date": None})
            with replacing(folder / "figures" / f"{item.name}.svg") as part:
                part.write_bytes(content.getvalue())
            svg[item.name] = base64.b64encode(content.getvalue()).decode()
    loader = PackageLoader("schnetpack_phonon.common")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("page.html")
    with replacing(places["page"]) as part:
        text = page.render(title=title, sections=sections, svg=svg)
        part.write_text(text, encoding="utf-8")
    return places


def write_markdown(path: Path, title: str, sections: Sequence[Section], figures: str = ".") -> str:
    """Writes a page as Markdown and its figures as PNG.

    Args:
        path: of the page.
        title: of the page.
        sections: in order.
        figures: folder of the figures, from that of the page.

    Returns:
        The text.
    """
    blocks = [f"# {_no_tags(title)}"]
    for section in sections:
        blocks += [f"## {_no_tags(section.title)}"] if section.title else []
        blocks += map(_no_tags, section.paragraphs)
        for item in section.items:
            if isinstance(item, Picture):
                place = f"{figures}/{item.name}.png".removeprefix("./")
                save_figure(item.figure, path.parent / place)
                blocks.append(f"![{_no_tags(item.caption)}]({place})")
            else:
                rows = item.rows.to_numpy().tolist()
                blocks += [_no_tags(item.caption)] if item.caption else []
                blocks.append("\n".join(markdown_table([*map(str, item.rows)], rows)))
    text = "\n\n".join(blocks) + "\n"
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return text


def strings(table: pd.DataFrame, formats: Mapping[str, str]) -> pd.DataFrame:
    """A copy with numbers as text.

    Args:
        table: any.
        formats: column -> format, such as ``.3g``.
    """
    return pd.DataFrame(
        {
            str(column): [_text(value, formats.get(str(column), "")) for value in table[column]]
            for column in table
        }
    )


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table whose columns are aligned in a terminal too.

    Names in cells may hold anything: pipes and tags are escaped, lines joined.
    """
    head, rows = [*map(_cell, head)], [[*map(_cell, row)] for row in rows]
    longest = (max(len(row[k]) for row in (head, *rows)) for k in range(len(head)))
    widths = [min(n, _WIDEST) for n in longest]
    lines = [head, ["-" * width for width in widths], *rows]
    padded = ([cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in lines)
    return [f"| {' | '.join(row)} |" for row in padded]


def _cell(text: str) -> str:
    return _no_tags(" ".join(text.splitlines())).replace("|", "\\|")


def _no_tags(text: str) -> str:
    """Text with what a browser would take for HTML escaped; ``a < b`` stays as it is."""
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", text)


def _text(value: object, form: str) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    return format(value, form) if form else str(value)
