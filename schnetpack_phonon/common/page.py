"""One HTML page that needs nothing beside it: text, tables and figures inside."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from schnetpack_phonon.common.files import replacing

_LEGIBLE = 0.75  # of its size: on narrower screens a figure is moved sideways instead


_LONG = 40  # characters in a cell, above which it has several lines


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  max-width: 60rem; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; margin: .5rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid #ddd; }
td { white-space: nowrap; } td.long { white-space: normal; min-width: 16rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; }
figure { margin: 1rem 0; } img { width: 100%; height: auto; }
figcaption, .caption, summary { font-size: .85rem; color: #444; margin: .3rem 0; }
summary { cursor: pointer; }
.claim { font-size: 1.1rem; border-left: 4px solid #0072B2; padding-left: 1rem; }
code { font-size: .85em; overflow-wrap: anywhere; }
@media (max-width: 40rem) { th, td { padding: .2rem .35rem; }
  td:not(.number) { white-space: normal; min-width: 4.5rem; } }
@media print { body { max-width: none; font-size: 11pt; } h2, .caption { break-after: avoid; }
  figure, tr { break-inside: avoid; } .wide { overflow: visible; } details { display: none; }
  table { font-size: 8pt; } th:first-child, td:first-child { position: static; }
  td, td.long { white-space: normal; min-width: 0; overflow-wrap: anywhere; }
  td.number { overflow-wrap: normal; }
  img { min-width: 0 !important; max-height: 95vh; object-fit: contain; } }
"""


@dataclass(frozen=True)
class Picture:
    """A figure, what is to be seen in it, and its numbers.

    Attributes:
        name: of the files.
        caption: one or two sentences.
        figure: drawn.
        data: the numbers in it.
    """

    name: str
    caption: str
    figure: Figure
    data: pd.DataFrame


@dataclass(frozen=True)
class Table:
    """A table of strings with a title for its file.

    Attributes:
        name: of the file.
        rows: what is shown, all strings.
        data: the numbers, all digits.
        caption: what it holds.
        folded: whether readers have to ask for it; paper does without.
    """

    name: str
    rows: pd.DataFrame
    data: pd.DataFrame
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A heading with text, tables and figures below it, in this order.

    Attributes:
        title: of the section.
        paragraphs: plain text.
        items: tables and figures.
        claim: whether the text is what the page is about.
    """

    title: str
    paragraphs: Sequence[str] = ()
    items: Sequence[Picture | Table] = field(default=())
    claim: bool = False


def write_page(folder: Path, title: str, sections: Sequence[Section]) -> dict[str, Path]:
    """Writes ``index.html``, ``report.md``, ``figures/*.png|svg`` and ``data/*.csv``.

    Args:
        folder: made where it is not.
        title: of the page.
        sections: in order.

    Returns:
        ``page`` and ``table``: the HTML and the Markdown file.
    """
    for name in ("figures", "data"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    body, text = [], [f"# {title}"]
    for section in sections:
        body.append(f"<h2>{html.escape(section.title)}</h2>")
        text.append(f"## {section.title}")
        for paragraph in section.paragraphs:
            kind = " class='claim'" if section.claim else ""
            body.append(f"<p{kind}>{html.escape(paragraph)}</p>")
            text.append(paragraph)
        for item in section.items:
            item.data.to_csv(folder / "data" / f"{item.name}.csv", index=False)
            if isinstance(item, Picture):
                body.append(_figure(folder, item))
                text.append(f"![{item.caption}](figures/{item.name}.png)")
            else:
                body.append(_table(item))
                text += [item.caption] if item.caption else []
                head = [str(column) for column in item.rows]
                rows = item.rows.map(lambda cell: cell.replace("|", "\\|"))
                text.append("\n".join(markdown_table(head, rows.to_numpy().tolist())))
    places = {"page": folder / "index.html", "table": folder / "report.md"}
    with replacing(places["page"]) as part:
        part.write_text(_document(title, body), encoding="utf-8")
    with replacing(places["table"]) as part:
        part.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    return places


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


def _text(value: object, form: str) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    return format(value, form) if form else str(value)


def _figure(folder: Path, picture: Picture) -> str:
    path = folder / "figures" / picture.name
    picture.figure.savefig(path.with_suffix(".png"), dpi=150)
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": picture.name}):  # the same file each time
        picture.figure.savefig(content, format="svg", metadata={"Date": None})
    path.with_suffix(".svg").write_bytes(content.getvalue())
    encoded = base64.b64encode(content.getvalue()).decode()
    caption = html.escape(picture.caption)
    width = 96 * picture.figure.get_figwidth()  # pixels of a browser
    return (
        f"<figure><div class='wide'><img style='min-width:{_LEGIBLE * width:.0f}px;"
        f"max-width:{width:.0f}px' alt='{caption}' src='data:image/svg+xml;base64,{encoded}'>"
        f"</div><figcaption>{caption}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(str(column))}</th>" for column in table.rows)
    lines = "".join(
        "<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in table.rows.to_numpy()
    )
    said = html.escape(table.caption)
    rows = f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody>"
    found = f"<div class='wide'><table>{rows}</table></div>"
    if table.folded:
        return f"<details><summary>{said}</summary>{found}</details>"
    return f"<p class=caption>{said}</p>{found}" if said else found


def _cell(value: str) -> str:
    number = value[:1].isdigit() or value[:1] in "-–"
    kind = " class=long" if len(value) > _LONG else " class=number" if number else ""
    return f"<td{kind}>{html.escape(value)}</td>"


def _document(title: str, body: Sequence[str]) -> str:
    escaped = html.escape(title)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escaped}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escaped}</h1>{''.join(body)}</body></html>"
    )


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns line up in a terminal too."""
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    padded = ([cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in lines)
    return [f"| {' | '.join(row)} |" for row in padded]
