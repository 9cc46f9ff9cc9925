"""What goes wrong in ways that a user can mend, and checks of options."""

from __future__ import annotations


class PhononError(Exception):
    """Base of our errors: what was got, what was expected and what to do, for the terminal."""


class LabellingError(PhononError, RuntimeError):
    """Labelling cannot go on; what was finished is in the store."""


class MissingLabelsError(LabellingError):
    """Labels are asked for that are not in the store, where none are computed."""


class UnavailableError(PhononError):
    """A code is not installed on this machine, or not in the version that was asked for."""


N_TRIES = 3  # of a job whose worker dies: it may have been another one's fault


class DeadWorkerError(PhononError):
    """The process of a job died, each time that it was tried."""

    def __init__(
        self,
        message: str = f"its worker process died {N_TRIES} times: memory was short (use fewer "
        "workers then), or the code crashes for this structure",
    ):
        super().__init__(message)


class ManifestError(PhononError, RuntimeError):
    """A folder was not exported, or not for what is asked for now."""


class DatabaseError(PhononError, RuntimeError):
    """The database at the given path is not the one that was asked for, or cannot be written."""


class HeldOutError(PhononError, RuntimeError):
    """A file cannot be used to test models."""


class ComparisonError(PhononError, RuntimeError):
    """Runs or test sets that must not be compared."""


class RunError(PhononError, RuntimeError):
    """A folder is not a finished run."""


class ReportError(PhononError, RuntimeError):
    """The run folder does not hold what a report needs."""


class AttributionError(PhononError, ValueError):
    """A model or a method whose bonds cannot be attributed; the message says why."""


def check_positive(unit: str = "", **values: float) -> None:
    """Raises ValueError for an option that is not above zero, NaN among them."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value:g}{unit and f' {unit}'}; expected > 0")


def check_at_least(least: float, unit: str = "", **values: float) -> None:
    """Raises ValueError for an option below ``least``, NaN among them."""
    for name, value in values.items():
        if not value >= least:
            raise ValueError(f"{name} is {value:g}{unit and f' {unit}'}; expected >= {least:g}")
