"""What outputs of codes tell: numbers of CP2K, convergence, settings."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    cp2k_text: energy forces stress version
    settings: cp2k_differences differences espresso_differences vasp_differences
    levels: band_edges mesh_edges partial_occupation
    convergence: check_calculator check_cp2k check_espresso check_espresso_log check_file check_vasp
    """,
)
