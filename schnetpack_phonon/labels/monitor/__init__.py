"""What is told of labels while they are computed: duration, band gaps, numbers."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    durations: Durations
    gaps: Gaps
    programs: check_programs
    tally: Tally reasons
    """,
)
