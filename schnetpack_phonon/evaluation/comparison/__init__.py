"""Which training data are better: many runs on one page."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    cached_predictions: predictions_of
    coverage: coverage_section distances_and_errors label_distributions mode_amplitudes
        pair_densities rank_correlations
    cross_tests: CrossTests cross_test finished
    figures: attribution_shares cross_matrix
    learning_curves: crossings labels_needed power_laws
    page: compare
    run_groups: group_runs
    tables: cost_table crossing_table data_table error_table law_table matrix_table needed_table
        ratio_table run_table settings_table share_table
    uncertainty: error_matrix ratios
    """,
)
