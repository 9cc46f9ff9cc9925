# PYTHON_ARGCOMPLETE_OK
"""The command ``spkphonon``."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    commands: main
    sweep_report: RoundsReport SweepJob SweepReport
    """,
)
