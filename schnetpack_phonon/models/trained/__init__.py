"""Trained models: their units, and training that starts from them."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    start_from: StartFrom start_from
    units: units_of units_of_data
    """,
)
