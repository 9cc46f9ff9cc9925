"""What came of a run: errors, tables, pages."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    active.callback: ActiveLearning
    callbacks: BondAttributionCallback CPUThreads ReportCallback
    metrics: errors in_report_units
    predicted: predict_files
    predictions: answers component_names predict stored_labels
    run_report: parity read_report write_report
    runs: Question Run find_runs read_run write_record
    test_sets: Components TestSet cell ensemble_name read_test_set seen stacked
    training: TrainingProgress
    """,
)
