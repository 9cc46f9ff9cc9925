"""TODO: describe."""

from __future__ import annotations


class LabellingError(RuntimeError):
    """Labelling cannot go on; what was finished is in the store."""


class MissingLabelsError(LabellingError):
    """Labels are asked for that are not in the store, where none are computed."""


class UnavailableError(Exception):
    """A code is not installed on this machine, or not in the version that was asked for."""


N_TRIES = 3  # of a job whose worker dies: it may have been another one's fault


class DeadWorkerError(Exception):
    """The process of a job died, each time that it was tried."""

    def __init__(
        self,
        message: str = f"its worker process died {N_TRIES} times: memory was short (use fewer "
        "workers then), or the code crashes for this structure",
    ):
        super().__init__(message)


class ManifestError(RuntimeError):
    """A folder was not exported, or not for what is asked for now."""


class DatabaseError(RuntimeError):
    """The database at the given path is not the one that was asked for, or cannot be written."""


class HeldOutError(RuntimeError):
    """A file cannot be used to test models."""


class ComparisonError(RuntimeError):
    """Runs or test sets that must not be compared."""


class RunError(RuntimeError):
    """A folder is not a finished run."""


class ReportError(RuntimeError):
    """The run folder does not hold what a report needs."""


class AttributionError(ValueError):
    """A model or a method whose bonds cannot be attributed; the message says why."""
