"""Bands, density of states and hoppings of a trained Hamiltonian."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    figures: band_figure hopping_figure
    hoppings: bond_distances environment_factors hopping_section hopping_table training_bonds
        unknown_bonds
    page: band_report
    """,
)
