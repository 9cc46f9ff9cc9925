"""Active learning: snapshots from dynamics of the potential that they teach."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    distance: TrainingSet descriptor far farthest_first training_set
    ensemble: ActiveEnsemble
    exploration: Exploration
    """,
)
