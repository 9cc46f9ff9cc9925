"""Programs that are needed and not installed: found before anything is calculated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.calculators.external_code import ExternalCode
from schnetpack_phonon.common.errors import UnavailableError
from schnetpack_phonon.labels.labelling import Job

_LABELS = "data.calculator"


def check_programs(
    calculator: LabellingCalculator,
    others: Mapping[str, LabellingCalculator],
    missing: Callable[[], Mapping[str, Sequence[Job]]],
) -> None:
    """Raises UnavailableError if a later step needs a program that an earlier one does not.

    A program that is needed first is missed at once, by its first label. Where the label store has
    all of a step, its program need not be installed.

    Args:
        calculator: of the labels.
        others: of the steps before: ``structure``, ``phonons``.
        missing: finds the jobs that are not in the store, as far as that tells, by purpose.
    """
    if not others:
        return
    steps = {f"data.{part}.calculator": own for part, own in others.items()}
    errors = {name: _error(own) for name, own in {**steps, _LABELS: calculator}.items()}
    if not any(errors.values()):
        return
    found = dict(missing())
    found.pop("ideal crystals", None)  # whose labels are no more than a remark
    settings = [job.input.settings for jobs in found.values() for job in jobs if job.input]
    for name, error in errors.items():
        own = steps.get(name, calculator).settings
        # What follows from labels that are missing is missing, too.
        needed = "lattice" in found or own in settings or (found and name == _LABELS)
        if error and needed:
            raise UnavailableError(f"{name}: {error}")


def _error(calculator: LabellingCalculator) -> UnavailableError | None:
    if isinstance(calculator, ExternalCode):
        try:
            calculator.check_installed()
        except UnavailableError as error:
            return error
    return None
