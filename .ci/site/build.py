"""Builds the site from the pages, the notebooks, the configs and the docstrings: ``make site``.

Pages are copied with their folders, so that their links hold here as on a hosting service; what is
generated stands in ``reference/``. Sphinx checks links and anchors, and any warning is an error.
"""

import json
import re
import shutil
import sys
from base64 import b64decode
from pathlib import Path

import reference
from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
PAGES = SITE / "pages"
INDEX = ROOT / "examples" / "README.md"  # its headings and links are the navigation


def main() -> int:
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.copytree(ROOT / "examples", PAGES / "examples")
    for name in ("CHANGELOG.md", "schnetpack_phonon/datasets/README.md"):
        (PAGES / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, PAGES / name)
    for notebook in PAGES.rglob("*.ipynb"):
        page = notebook.with_name(f"{notebook.stem}_notebook.md")
        page.write_text(_markdown(json.loads(notebook.read_text()), notebook.with_suffix("")))
    generated = reference.write(PAGES / "reference")
    (PAGES / "index.md").write_text((ROOT / "README.md").read_text() + _navigation(generated))
    for page in PAGES.rglob("*.md"):
        page.write_text(re.sub(r"\(([./\w]+)\.ipynb\)", r"(\1_notebook.md)", page.read_text()))
    configuration = str(Path(__file__).parent)
    folders = [str(PAGES), str(SITE / "html")]
    return sphinx(
        ["-W", "--keep-going", "-q", "-d", str(SITE / "doctrees"), "-c", configuration, *folders]
    )


def _navigation(generated: dict[str, str]) -> str:
    """Tables of contents: each heading of the page of pages, with the pages that it names."""
    text = _toctree("Overview", ["examples/README"])
    for part in INDEX.read_text().split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        links = re.findall(r"\]\(([^)#]+\.(?:md|ipynb))\)", body)
        names = [f"examples/{link.removeprefix('./')}" for link in links]
        names = [name.removeprefix("examples/../") for name in dict.fromkeys(names)]
        names = [name.replace(".ipynb", "_notebook.md") for name in names]
        names += generated.get(heading, [])
        text += _toctree(heading, names)
    return text


def _toctree(caption: str, names: list[str]) -> str:
    return f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```\n"


def _markdown(notebook: dict, pictures: Path) -> str:
    """Text, code and outputs of a notebook as a page."""
    text, count = "", 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        text += (
            source + "\n\n" if cell["cell_type"] == "markdown" else f"```python\n{source}\n```\n\n"
        )
        printed = ""
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = Path(f"{pictures}_{count}.png")
                picture.write_bytes(b64decode("".join(data["image/png"])))
                printed += f"![Output of the cell above]({picture.name})\n\n"
                count += 1
            else:
                words = "".join(data.get("text/plain", output.get("text", ""))).rstrip()
                printed += f"```text\n{words}\n```\n\n"
        text += printed.replace("\n```\n\n```text\n", "\n")  # what several lines printed
    return text


if __name__ == "__main__":
    sys.exit(main())
