"""Formats of files that ASE does not read."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    phonopy_forces: read_forces
    phonopy_yaml: in_angstrom is_yaml phonopy_unitcell read_phonopy_yaml reading
    """,
)
