"""Gap and band edges as eigenvalues of a learned tight-binding Hamiltonian."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    bands: Levels hamiltonian_of
    environment: Environment NoFeatures
    head: HamiltonianEdges
    levels: band_edges eigenvalues kpoint_meshes levels_at_gap
    matrix: Hamiltonian MatrixElements
    orbitals: Orbitals orbitals_of
    two_centre: TwoCentre
    """,
)
