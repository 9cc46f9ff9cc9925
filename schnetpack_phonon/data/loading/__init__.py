"""Neighbour lists that are made once, and loaders that cut batches from them."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    determinism: UnknownSettingsError random_states repeatable_prefix same_items settings_of
    graph_cache: open_graphs
    graphs: Column DamagedGraphsError DifferentGraphsError Graphs pack write
    loaders: GraphDataset GraphLoading Shares
    """,
)
