"""Potentials that others have trained."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(__name__, "sevennet: SevenNet")
