"""What the tests of figures share."""

import io

import pytest
from matplotlib.figure import Figure

CRYSTALS = ("Ag3SBr", "Ag3SI", "Ag3SeBr", "Ag3SeI")
N_CRYSTALS = pytest.mark.parametrize("crystals", [CRYSTALS[:1], CRYSTALS], ids=["one", "four"])


def draw(figure: Figure) -> None:
    """Renders a figure; layout and missing glyphs warn only here."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    assert file.getvalue().startswith(b"\x89PNG")
