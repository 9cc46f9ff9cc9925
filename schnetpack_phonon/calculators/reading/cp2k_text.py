"""Numbers in the output of CP2K, with the units that it prints beside them.

Units and layout depend on the version and on options such as STRESS_UNIT: versions before 2025.1
print ``ATOMIC FORCES in [a.u.]`` and a stress in GPa, later ones ``FORCES| Atomic forces
[hartree/bohr]`` and a stress in bar.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.units import Bohr, GPa, Hartree, Pascal, Rydberg, bar, eV

_ENERGY = {"a.u.": Hartree, "hartree": Hartree, "ry": Rydberg, "ev": eV}
_FORCE = {"a.u.": Hartree / Bohr, "hartree/bohr": Hartree / Bohr, "ev/angstrom": eV}
_STRESS = {
    "pa": Pascal,
    "mpa": 1e6 * Pascal,
    "gpa": GPa,
    "bar": bar,
    "kbar": 1e3 * bar,
    "atm": 1.01325 * bar,
    "a.u.": Hartree / Bohr**3,
    "hartree/bohr^3": Hartree / Bohr**3,
}
_NUMBER = r"\s+(-?\d+\.\d+(?:E[+-]?\d+)?)"


def version(text: str) -> str:
    """Such as ``2023.1``."""
    return found(r"CP2K\| version string:\s+CP2K version (\S+)", text, "version")


def structure(text: str) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    """Symbols, cell and positions in Ang from the copy of the input, if the output has one."""
    number = r" +(-?\d\S*)"
    vectors = re.findall(rf"^ +[ABC]{3 * number}$", text, re.MULTILINE)
    if not vectors:  # lengths and angles in the input
        vectors = re.findall(rf"^ CELL\| Vector [abc] \[angstrom\]:{3 * number}\b", text, re.M)[:3]
    section = re.search(r"&COORD\n(.*?)&END COORD", text, re.DOTALL)
    if len(vectors) != 3 or section is None:
        return None
    # Kinds of one element have numbers.
    sites = re.findall(rf"^ *([A-Z][a-z]?)\d*{3 * number}$", section[1], re.MULTILINE)
    positions = np.array([values for _, *values in sites], dtype=float).reshape(-1, 3)
    cell = np.array(vectors, dtype=float)
    if re.search(r"^ +SCALED +T", section[1], re.MULTILINE):
        positions = positions @ cell
    elif unit := re.search(r"^ +UNIT +(?!angstrom)(\S+)", section[1], re.MULTILINE | re.IGNORECASE):
        raise CalculationFailed(f"CP2K's input has positions in {unit[1]}; expected angstrom")
    return [symbol for symbol, *_ in sites], cell, positions


def atoms(text: str) -> Atoms:
    """The structure that was calculated.

    Raises:
        CalculationFailed: if the output is of several, or does not tell.
    """
    kind = re.search(r"^ +RUN_TYPE +(\S+)", text, re.MULTILINE)
    if kind and kind[1] not in ("ENERGY_FORCE", "ENERGY"):
        raise CalculationFailed(
            f"RUN_TYPE is {kind[1]}, but CP2K's output has the first structure only; expected "
            "ENERGY_FORCE: write the frames into an extxyz file"
        )
    found = structure(text)
    if found is None:
        raise _lacks(text, "copy of its input: set ECHO_INPUT there")
    symbols, cell, positions = found
    return Atoms(symbols, positions, cell=cell, pbc=True)


def energy(text: str) -> float:
    """Free energy, in eV."""
    pattern = r"^ ENERGY\| Total FORCE_EVAL.*?energy [\[(](.+?)[\])]:?\s+(-?\d+\.\d+)\s*$"
    lines = re.findall(pattern, text, re.MULTILINE)
    if not lines:
        raise _lacks(text, "energy")
    unit, value = lines[-1]
    return float(value) * _factor(text, "energy", unit, _ENERGY)


def forces(text: str) -> tuple[list[str] | None, np.ndarray]:
    """Symbols, where they are printed, and forces in eV/Ang, shape=(n_atoms, 3)."""
    *_, header = [
        None,
        *re.finditer(
            r"^ (?:FORCES\| Atomic|ATOMIC) FORCES (?:in )?\[(.+?)\]\s*$",
            text,
            re.MULTILINE | re.IGNORECASE,
        ),
    ]
    if header is None:
        raise _lacks(text, "forces")
    factor = _factor(text, "forces", header[1], _FORCE)
    block = re.split(r"^ (?:SUM OF|FORCES\|\s+Sum)", text[header.end() :], flags=re.MULTILINE)[0]
    if header[0].lstrip().startswith("FORCES|"):
        symbols = None
        rows = re.findall(
            r"^ FORCES\|\s+\d+\s+(\S+)\s+(\S+)\s+(\S+)\s+\S+\s*$", block, re.MULTILINE
        )
    else:
        row = r"^\s+\d+\s+\d+\s+([A-Z][a-z]?)\s+(\S+)\s+(\S+)\s+(\S+)\s*$"
        sites = re.findall(row, block, re.MULTILINE)
        symbols, rows = [symbol for symbol, *_ in sites], [values for _, *values in sites]
    return symbols, np.array(rows, dtype=float).reshape(-1, 3) * factor


def stress(text: str) -> np.ndarray:
    """Stress with ASE's sign in eV/Ang^3, shape=(3, 3); CP2K prints the pressure."""
    *_, header = [
        None,
        *re.finditer(r"^ STRESS\|(?! Eigen).* stress tensor \[(.+?)\]\s*$", text, re.MULTILINE),
    ]
    row = rf"^ STRESS\|\s+[xyz]{3 * _NUMBER}\s*$"
    # The first three: those of the eigenvectors follow.
    rows = header and re.findall(row, text[header.end() :], re.MULTILINE)[:3]
    if header is None or not rows or len(rows) != 3:
        raise _lacks(text, "stress tensor")
    return -np.array(rows, dtype=float) * _factor(text, "stress", header[1], _STRESS)


def n_electrons(text: str, n_spins: int) -> int:
    """Number of electrons; printed for each spin if there are two."""
    numbers = re.findall(r"Number of electrons:\s+(\d+)", text)[:n_spins]
    if len(numbers) < n_spins:
        raise _lacks(text, "number of electrons")
    return sum(map(int, numbers))


def levels(text: str) -> np.ndarray:
    """Levels in eV and occupations, which are 2 for a full level, of one spin, too.

    Returns:
        shape=(n_kpoints, n_bands, 2), or (2, n_kpoints, n_bands, 2) for two spins.
    """
    title = r"^ MO\| *(ALPHA|BETA)? *EIGENVALUES AND OCCUPATION NUMBERS"
    _, *parts = re.split(title, text, flags=re.MULTILINE)
    row = rf"^ MO\|\s+\d+\s+\S+{2 * _NUMBER}\s*$"
    spins: dict[str, list] = {}
    for spin, block in zip(parts[::2], parts[1::2], strict=True):
        spins.setdefault(spin, []).append(re.findall(row, block, re.MULTILINE))
    if not spins or not all(map(len, (rows for own in spins.values() for rows in own))):
        raise _lacks(text, "orbital energies")
    n_bands = min(len(rows) for own in spins.values() for rows in own)
    found = np.array([[rows[:n_bands] for rows in own] for own in spins.values()], dtype=float)
    return found[0] if len(found) == 1 else found * [1, 2]


def levels_at_gamma(bands: str) -> np.ndarray:
    """Levels in eV in the last set of a band structure, shape=(n_bands,) or (2, n_bands)."""
    _, *spins = bands.rpartition("# Set")[2].split("#  Point")
    rows = [re.findall(rf"^\s+\d+{_NUMBER}", spin, re.MULTILINE) for spin in spins]
    n_bands = min(map(len, rows))
    found = np.array([own[:n_bands] for own in rows], dtype=float)
    return found[0] if len(found) == 1 else found


def kpoints(text: str, mesh: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Fractions of the reciprocal cell, shape=(n_kpoints, 3), and weights, shape=(n_kpoints,)."""
    if "FOR K POINT" not in text:
        return np.zeros((1, 3)), np.ones(1)
    rows = re.findall(rf"^ BRILLOUIN\|\s+\d+{4 * _NUMBER}\s*$", text, re.MULTILINE)
    if not rows:
        raise _lacks(text, "list of k-points")
    found = np.array(rows, dtype=float)
    steps = 2 * np.array(mesh)  # of a mesh with or without Gamma; five decimals are printed
    return (found[:, 1:] * steps).round() / steps, found[:, 0]


def found(pattern: str, text: str, what: str) -> str:
    """The first group of the first match.

    Raises:
        CalculationFailed: if there is none.
    """
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise _lacks(text, what)
    return match[1]


def _factor(text: str, what: str, unit: str, known: Mapping[str, float]) -> float:
    if unit.lower() not in known:
        raise CalculationFailed(
            f"CP2K {_version(text)} prints {what} in {unit!r}; expected one of {', '.join(known)}"
        )
    return known[unit.lower()]


def _lacks(text: str, what: str) -> CalculationFailed:
    return CalculationFailed(
        f"CP2K's output has no {what}, or it is not printed (version {_version(text)}) as versions "
        "2023 to 2026 print it"
    )


def _version(text: str) -> str:
    match = re.search(r"CP2K version (\S+)", text)
    return match[1] if match else "not known"
