"""Errors that users can correct, and checks of options."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real


class PhononError(Exception):
    """Base of our errors. Messages say what was found, what was expected and what to do."""


class UnreadableFileError(PhononError, ValueError):
    """A file that a library cannot read; the message names it."""


class LabellingError(PhononError, RuntimeError):
    """Labelling cannot continue; finished labels are in the store."""


class MissingLabelsError(LabellingError):
    """Labels are needed that are not in the store, where none are computed."""


class UnavailableError(PhononError):
    """A code is not installed on this machine, or not in the required version."""


N_TRIES = 3  # of a job whose worker dies: the reason may lie elsewhere on the machine
_DIED = (
    f"its worker process died {N_TRIES} times: either memory was short (use fewer workers), or the "
    "code crashes for this structure"
)


class DeadWorkerError(PhononError):
    """The worker process of a job died at every try."""

    def __init__(self, message: str = _DIED):
        super().__init__(message)


class ManifestError(PhononError, RuntimeError):
    """A folder was not exported, or for other settings than the present ones."""


class DatabaseError(PhononError, RuntimeError):
    """The database at the given path has other settings, or cannot be written."""


class HeldOutError(PhononError, RuntimeError):
    """A file cannot be used to test models."""


class ComparisonError(PhononError, RuntimeError):
    """Runs or test sets that cannot be compared."""


class RunError(PhononError, RuntimeError):
    """A folder is not a finished run."""


class ReportError(PhononError, RuntimeError):
    """The run folder does not hold what a report needs."""


class TrainingError(PhononError, ValueError):
    """Training cannot start or continue from this model, checkpoint or data."""


class UnitError(PhononError, ValueError):
    """Numbers in a unit that is not known, or not the expected one."""


class AttributionError(PhononError, ValueError):
    """Bonds of this model, or by this method, cannot be attributed; the message says why."""


def check_positive(unit: str = "", **values: float) -> None:
    """Raises ValueError for an option that is not above zero, NaN, or no number."""
    for name, value in values.items():
        _check_number(name, value)
        if not value > 0:
            raise ValueError(f"{name} is {value:g}{unit and f' {unit}'}; expected > 0")


def check_at_least(least: float, unit: str = "", **values: float) -> None:
    """Raises ValueError for an option below ``least``, NaN, or no number."""
    for name, value in values.items():
        _check_number(name, value)
        if not value >= least:
            raise ValueError(f"{name} is {value:g}{unit and f' {unit}'}; expected >= {least:g}")


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; expected a number")


def check_choice(choices: Iterable[str], **values: str) -> None:
    """Raises ValueError for an option that is none of the choices."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; expected {', '.join(choices)}")
