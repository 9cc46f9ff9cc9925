"""Which bonds carry a prediction."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__, __all__ = names_of(
    __name__,
    """
    bond_attribution: attribute
    edges: Edges default_edges_per_pass
    faithfulness: exchanged_changes freezing random_subsets untrained
    figures: against_length bond_shares freezing snapshot
    methods: check_method integrate_in_parts split_over_bonds
    model_checks: check_model output_component unseen_terms
    paths: StraightPath bond_numbers bond_types edge_vectors opposite path_edges shells
        straight_path
    report: Settings Tables clear_part compare measure merge_parts write write_part
    results: BondAttribution atom_sums group_shares shares why_no_shares write_bond_extxyz
        write_dump_local write_table
    trust: apart correlation missed_shares stability trust_table trust_text verdict
    """,
)
