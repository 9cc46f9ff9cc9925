"""The command ``spkphonon``."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__, __all__ = names_of(
    __name__,
    """
    attribute: run
    commands: main
    sweep_report: SweepReport
    """,
)
