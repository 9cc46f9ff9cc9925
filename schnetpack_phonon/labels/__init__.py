"""Labels: the store, the jobs that fill it, and offline calculations."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    cluster: pilot_jobs_here serve_tasks slurm
    finite_strain: FiniteStrain
    labelling: Job Labeller Planner Repeated label_job label_key
    maintenance: merge outdated prune summary
    monitor.tally: Tally reasons
    manifest: Calculation Manifest read_manifest
    offline: collect export
    relaxation: largest_force relax relax_ions relax_job relaxed_label_job unrelaxed
    results: Result Status Summary read_results
    store: Input LabelStore Record existing_store
    """,
)
