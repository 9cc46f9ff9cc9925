"""Outputs of programs that ASE does not read: those of CP2K, and the XML of pw.x."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.calculators.espresso import Espresso
from schnetpack_phonon.calculators.output import OutputReader, text_of, xml_root
from schnetpack_phonon.calculators.reading.settings import cp2k_settings, espresso_settings

_BEGINNING = 20_000  # bytes, which name the program
_CP2K = ["PARAMETRIZATION", "BASIS_SET", "POTENTIAL", "CUTOFF", "REL_CUTOFF", "EPS_DEFAULT"]
_CP2K += ["EPS_SCF", "ELECTRONIC_TEMPERATURE", "SCHEME MONKHORST-PACK"]


def reader_of(path: Path) -> OutputReader | None:
    """What reads the output of CP2K or the XML of pw.x; None for any other file.

    Its results may lack the gap at Gamma.
    """
    reader: OutputReader
    with open(path, "rb") as file:
        beginning = file.read(_BEGINNING)
    if re.search(rb"^ CP2K\| version string", beginning, re.MULTILINE):
        reader = CP2K()
    elif b"<qes:espresso" in beginning:
        reader = Espresso({}, "", ecutwfc=1.0, ecutrho=4.0)  # which change nothing that is read
    else:
        return None
    reader.output = path.name  # type: ignore[misc]
    reader.needs_gamma = False
    return reader


def settings_of(reader: OutputReader, path: Path) -> dict[str, Any]:
    """Settings of the code, as far as its output tells them."""
    if reader.name == CP2K.name:
        return {"code": reader.name, **cp2k_settings(text_of(path), _CP2K)}
    return {"code": reader.name, **espresso_settings(xml_root(path))}
