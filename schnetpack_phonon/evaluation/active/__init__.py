"""Active learning: the error of each round's potential on the structures of its own dynamics."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    callback: ActiveLearning
    report: rounds_report
    rounds: RoundErrors errors_of_round read_rounds write_round
    """,
)
