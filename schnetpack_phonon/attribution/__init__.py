"""Which bonds carry a prediction."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    bond_attribution: attribute unseen_terms
    checks: apart checks_table checks_text correlation missed_shares stability verdict
    edges: Edges check_model default_edges_per_pass output_component
    faithfulness: exchanged_changes random_subsets subset_effects untrained
    figures: against_length bond_shares predicted_against_actual snapshot
    methods: Integrand check_method integrate_in_parts split_over_bonds
    paths: StraightPath bond_numbers bond_types edge_vectors opposite path_edges shells
        straight_path
    report: Settings Tables clear_part compare measure merge_parts write write_part
    results: BondAttribution atom_sums group_shares shares why_no_shares write_bond_extxyz
        write_dump_local write_table
    """,
)
