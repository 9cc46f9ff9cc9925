"""Properties at temperature from trained models."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    at_rest: AtRest crystal_at_rest
    averages: ThermalProperties thermal_properties
    models:
    page: against_temperature modes thermal_report
    sizes: against_size extrapolated gap_against_size
    vibrations:
    """,
)
