"""TODO: describe."""

from __future__ import annotations

from schnetpack_phonon.common.properties import PROPERTIES, Property

#: Colours that remain distinct in the common forms of colour blindness (Okabe and Ito).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


MARKERS = "osD^vP*"


def property_of(key: str) -> Property:
    return PROPERTIES.get(key) or Property((), "", key, "")
