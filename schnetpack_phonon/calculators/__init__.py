"""Electronic-structure codes that compute labels: one file for each code."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    base: AseCalculator LabellingCalculator as_ase_calculator labels_from_results
    cp2k: CP2K
    espresso: Espresso
    external_code: ExternalCode
    gpaw: Gpaw
    output: NotConverged OtherStructure OutOfTime OutputReader check_structure check_symbols
    potentials.sevennet: SevenNet
    tight_binding: TightBinding
    vasp: Vasp grouped
    """,
)
