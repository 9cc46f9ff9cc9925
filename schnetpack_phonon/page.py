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

from schnetpack_phonon.files import replacing
from schnetpack_phonon.report import markdown_table

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  max-width: 60rem; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; margin: 1rem 0; } table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid #ddd; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th { border-bottom: 2px solid #888; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption, .small { font-size: .85rem; color: #444; }
.claim { font-size: 1.1rem; border-left: 4px solid #0072B2; padding-left: 1rem; }
code { font-size: .85em; overflow-wrap: anywhere; }
@media print { body { max-width: none; font-size: 11pt; } h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; } .wide { overflow: visible; } table { font-size: 8pt; } }
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
    """

    name: str
    rows: pd.DataFrame
    data: pd.DataFrame


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
                body.append(_table(item.rows))
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
    return (
        f"<figure><img alt='{caption}' src='data:image/svg+xml;base64,{encoded}'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(rows: pd.DataFrame) -> str:
    head = "".join(f"<th>{html.escape(str(column))}</th>" for column in rows)
    lines = "".join(
        "<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows.to_numpy()
    )
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead>{lines}</table></div>"


def _cell(value: str) -> str:
    number = value[:1].isdigit() or value[:1] in "-–"
    return f"<td{' class=number' if number else ''}>{html.escape(value)}</td>"


def _document(title: str, body: Sequence[str]) -> str:
    escaped = html.escape(title)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escaped}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escaped}</h1>{''.join(body)}</body></html>"
    )
