"""The database of an ensemble and the data module that trains on it."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    card: at_rest content_digest distribution write_card
    database: Row check_settings read_metadata write_database write_db
    datamodule: EnsembleData
    export: write_extxyz write_xyz
    generation: Generation describe
    preparation: Recipe end_members prepare
    reading: Structure read_labels read_provenance read_rows read_structures
    splits: EpochSampler NestedSplit ParentSplit
    statistics: composition_fit fit_to_shares label_spread training_elements training_labels
    """,
)
