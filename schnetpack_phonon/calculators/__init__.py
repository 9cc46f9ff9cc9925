"""Electronic-structure codes that give labels: one file a code."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__, __all__ = names_of(
    __name__,
    """
    _gpaw_script: calculate main
    base: AseCalculator LabellingCalculator as_ase_calculator band_edges check_size
        labels_from_results mesh_edges
    cp2k: CP2K read_output read_version
    espresso: Espresso read_output read_version
    external_code: ExternalCode NotConverged OtherStructure check_places
        check_symbols cut_off kpoint_mesh no_output printed
    gpaw: Gpaw read_output read_version
    tight_binding: TightBinding
    vasp: Vasp grouped read_output read_version
    """,
)
