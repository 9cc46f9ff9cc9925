"""Labels that exist: reading them from files, checking them, and adding them to a store."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    checks: check_labels
    frames: Frame FileLabels read_labelled
    into_store: import_labels
    """,
)
