"""Force constants and the harmonic model of a crystal."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    checks: check_fit check_force_constants check_symmetry same_atoms
    dispersion: Dispersion bands convergence
    force_constants: FiniteDisplacements PhononSource different_models harmonic_models
        mixed_force_constants phonon_model save_phonopy sources unmixed
    force_pool: ForcePool
    harmonic: HarmonicModel Renormalization free_energy harmonic_model
        normal_modes to_blocks to_matrix
    instabilities: Instabilities
    modes: BlochModes Modes WholeModes bloch_modes whole_modes
    phonopy_files: PhonopyFiles
    renormalization: NotConvergedError Renormalised Step
    """,
)
