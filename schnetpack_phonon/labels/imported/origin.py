"""Whether labels of a file are of the code, version and settings that a job asks for."""

from __future__ import annotations

from copy import copy

import numpy as np

from schnetpack_phonon.calculators.base import AseCalculator, LabellingCalculator
from schnetpack_phonon.calculators.external_code import ExternalCode
from schnetpack_phonon.calculators.reading.settings import TOLD
from schnetpack_phonon.labels.imported.frames import NOT_TOLD, FileLabels, Frame
from schnetpack_phonon.labels.labelling import Job, label_key
from schnetpack_phonon.structures.atom_properties import magnetic_moments
from schnetpack_phonon.structures.matching import Match


def other_origin(
    source: FileLabels, frame: Frame, job: Job, place: Match, calculator: LabellingCalculator
) -> tuple[list[str], bool]:
    """Version and settings that are not those of a job, and whether the file tells of any.

    Args:
        source: the file.
        frame: of the file.
        job: that the frame is of.
        place: of its atoms.
        calculator: of the job.
    """
    expected, found = calculator.code_version, source.code_version
    info = frame.atoms.info
    ours = info.get("key_value_pairs") or info
    if {"code", "key"} <= ours.keys() or {"code", "settings_hash"} <= ours.keys():  # we wrote it
        if str(ours["code"]) != expected:
            return [f"it is of {ours['code']}; expected {expected}"], True
        if "key" not in ours:
            return [], False
        in_file = label_key(calculator.settings, expected, frame.atoms)
        other = ours["key"] not in (job.key, in_file)
        return ["its key is that of other settings"] if other else [], True
    if found == NOT_TOLD or isinstance(calculator, AseCalculator):
        return [], False
    if found != expected:
        advice = "" if found.split()[0] != expected.split()[0] else ": set data.calculator.version"
        return [f"it is of {found}; expected {expected}{advice}"], True
    if not isinstance(calculator, ExternalCode):
        return [], False
    reader = copy(calculator)
    reader.output = source.path.name  # type: ignore[misc]
    (atoms,) = job.arguments
    there = atoms[np.argsort(place.order)]
    others = reader.other_settings(source.path.parent, there)
    told_only = TOLD if magnetic_moments(atoms) is None else ()
    return [text for name, text in others.items() if name not in told_only], True
