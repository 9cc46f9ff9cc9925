"""Ensembles of displaced structures, one file for each kind."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    active.ensemble: ActiveEnsemble
    base: Ensemble Group SimpleEnsemble Snapshot accepted check_thermal ideal_of snapshot_groups
        until_accepted
    dynamics.ensemble: MolecularDynamics
    fixed: ModeEnsemble RenormalisationEnsemble SpecialEnsemble
    independent: RandomEnsemble
    mixture: MixtureEnsemble
    preview: Preview displacements distances write_preview
    sampler: Acceptance Batch NormalSampler Sampler mean_squares
    strained: StrainedEnsemble
    thermal: MatchedEnsemble PhononEnsemble ThermalEnsemble
    trajectory: FileEnsemble
    """,
)
