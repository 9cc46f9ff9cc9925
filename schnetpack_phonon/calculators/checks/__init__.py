"""Checks of calculations that were made elsewhere: are they finished, and with which settings."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    convergence: check_calculator check_cp2k check_espresso check_espresso_log check_file check_vasp
    """,
)
