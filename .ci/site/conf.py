"""Settings of Sphinx for the site; ``build.py`` makes its pages."""

import re
from urllib.parse import urlsplit

import latex2mathml.converter
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

import schnetpack_phonon

project = "schnetpack_phonon"
author = copyright = "The schnetpack_phonon developers"
release = version = schnetpack_phonon.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
suppress_warnings = ["myst.header"]

html_theme = "furo"
html_title = "schnetpack_phonon"
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

nitpicky = True
# Without a link: types of other packages, variables of types, and classes that no folder names.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!\.?schnetpack_phonon).*"),
    (r"py:.*", r".*\.(_\w+|T|Result|TrainedOn|Models)"),
]


def setup(app: Sphinx) -> None:
    """Formulas that browsers draw themselves, and a look at the links to other sites."""
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
    app.connect("doctree-resolved", _check_links)


def _formula(translator, node) -> None:
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    translator.body.append(latex2mathml.converter.convert(node.astext(), display=display))
    raise nodes.SkipNode


def _check_links(app: Sphinx, doctree: nodes.document, name: str) -> None:
    for node in doctree.findall(nodes.reference):
        address = node.get("refuri", "")
        if "://" in address:
            parts = urlsplit(address)
            if parts.scheme != "https" or not re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc):
                logging.getLogger(name).warning("odd address: %s", address, location=node)
