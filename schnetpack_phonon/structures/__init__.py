"""Crystals: prototypes, files, mixed crystals, and the elasticity of cells."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    alloys: MixedAntiperovskites end_member_formulas plain replaced vegard
    atom_properties: check_atom_properties check_same_moments magnetic_kinds magnetic_moments
        own_masses to_ase to_phonopy
    crystals: Antiperovskites Crystal Crystals StructureSource antiperovskite
        displaced_positions shortest_distance supercell_matrix translations
    disordered: DisorderedCrystal
    files: StructureFile formula files_of_crystals read_frames read_structure
    formats.cif: DisorderedSites read_cif read_disordered_cif
    formats.mean_of_frames: MeanStructure mean_structure
    formats.phonopy_yaml: phonopy_unitcell read_phonopy_yaml
    several_files: StructureFiles
    supercells: auto_supercell supercell_of
    elasticity: Moduli finite_strain_tensor finite_strains hill_average is_stable point_group
        reuss_average rotated strained symmetrized tensor_to_voigt universal_anisotropy
        voigt_average voigt_to_tensor
    """,
)
