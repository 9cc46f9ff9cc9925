"""Phonons of a trained model beside those of its data."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    compared: ComparedPhonons compared
    page: phonon_report
    """,
)
