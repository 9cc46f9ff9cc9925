"""Labels: the store, what fills it, and labels that are computed elsewhere."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__, __all__ = names_of(
    __name__,
    """
    cluster: pilot_jobs_here serve_tasks slurm
    finite_strain: FiniteStrain
    labelling: Job Labeller Planner Repeated Tally label_job label_key reasons relax_job
        relaxed_label_job
    maintenance: merge prune summary
    manifest: Calculation Manifest read_manifest
    offline: collect export
    relaxation: largest_force relax relax_ions unrelaxed
    results: Outcome Status Summary read_outcomes
    store: Input LabelStore Record existing_store
    """,
)
