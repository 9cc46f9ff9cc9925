"""What is shown while commands run."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    console: Console above_bars quiet
    """,
)
