"""Settings that outputs name, compared with those that were asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np

TOLD = frozenset({"ISPIN", "lsda"})  #: a closed shell has the same labels with two spins
# Tags of VASP that change labels where they are set, whatever else is.
_FURTHER = {"METAGGA", "IVDW", "LUSE_VDW", "LDAU", "LHFCALC", "AEXX", "HFSCREEN", "NELECT"}
_FURTHER |= {"EFIELD", "IDIPOL", "LDIPOL", "EPSILON", "LSOL", "ML_LMLFF", "LIBXC1", "LIBXC2"}
_FURTHER |= {"NUPDOWN", "MAGMOM"}
# Tags that change the way to the labels, or what is written besides.
_OTHERS = frozenset({"ALGO", "AMIX", "NELM", "NSW", "IBRION", "ISIF", "LWAVE", "LCHARG"})


def differences(found: Mapping[str, str], expected: Mapping[str, Any]) -> dict[str, str]:
    """Sentences about settings with other values, by name.

    Args:
        found: values as they are printed. Those that the output does not name are not compared.
        expected: numbers, words, booleans, or lists of numbers.
    """
    return {
        name: f"{name} is {' '.join(found[name].split())}; expected {_words(value)}"
        for name, value in expected.items()
        if name in found and not _same(found[name].strip(), value)
    }


def vasp_differences(
    root: ElementTree.Element, tags: Mapping[str, Any], kpoints: tuple[int, ...]
) -> dict[str, str]:
    """Differences of vasprun.xml.

    Args:
        root: of vasprun.xml.
        tags: of the INCAR that was asked for.
        kpoints: mesh around Gamma.
    """
    given, found = _vasp_tags(root)
    expected = {tag: value for tag, value in tags.items() if tag not in _OTHERS}
    expected |= {"k-points, mesh": kpoints, "k-points, shift": (0, 0, 0)}
    further = {
        tag: f"{tag} is {value.strip()}; expected none"
        for tag, value in given.items()
        if tag in _FURTHER - tags.keys() and value.strip().strip(".").upper()[:1] not in ("F", "0")
    }
    return differences(found, expected) | further


def vasp_settings(root: ElementTree.Element) -> tuple[str, dict[str, Any]]:
    """Name and version of the code, and the settings that vasprun.xml tells."""
    version = " ".join((root.findtext("generator/i[@name='version']") or "").split())
    given, found = _vasp_tags(root)
    named = {*given, *_FURTHER, *_ALWAYS} - _OTHERS - _WAYS
    values = {tag: " ".join(found[tag].split()) for tag in sorted(named & found.keys())}
    titles = [" ".join((c.text or "").split()) for c in root.findall(_TITLE.replace("/c[5]", "/c"))]
    potentials = [title for title in titles if " " in title]
    return f"VASP {version}".strip(), {"code": "VASP", **values, "potentials": potentials}


def _vasp_tags(root: ElementTree.Element) -> tuple[dict[str, str], dict[str, str]]:
    """Tags of the INCAR, and values of all, by name."""
    given = {str(item.get("name")): item.text or "" for item in root.findall("incar/*")}
    found = {str(item.get("name")): item.text or "" for item in root.findall("parameters//i")}
    if "ENMAX" in found:
        found["ENCUT"] = found.pop("ENMAX")
    found |= given
    if found.get("GGA", "").strip() == "--" and "PBE" in root.findtext(_TITLE, ""):
        found["GGA"] = "PE"  # that of the pseudopotentials
    for name, value in (("mesh", "divisions"), ("shift", "usershift")):
        item = root.find(f"kpoints/generation/v[@name='{value}']")
        found |= {} if item is None else {f"k-points, {name}": item.text or ""}
    return given, found


_ALWAYS = {"GGA", "ENCUT", "EDIFF", "ISMEAR", "SIGMA", "ISPIN", "k-points, mesh", "k-points, shift"}
# Tags of the work and of the path through structures.
_WAYS = {"KPAR", "NCORE", "NPAR", "NSIM", "LPLANE", "LSCALU", "SYSTEM", "TEBEG", "TEEND"}
_WAYS |= {"SMASS", "POTIM", "MDALGO", "LANGEVIN_GAMMA", "NBLOCK", "KBLOCK"}
_TITLE = "atominfo/array[@name='atomtypes']/set/rc/c[5]"


def espresso_differences(root: ElementTree.Element, expected: Mapping[str, Any]) -> dict[str, str]:
    """Differences of the XML of pw.x.

    Args:
        root: of the XML.
        expected: ecutwfc, ecutrho, conv_thr and degauss in Hartree, and others by their names
            in the table of paths below.
    """
    return differences(espresso_settings(root), expected)


def espresso_settings(root: ElementTree.Element) -> dict[str, str]:
    """Settings that the XML of pw.x tells, in Hartree, by the names of the table below."""
    found = {
        name: text.strip()
        for name, path in _PATHS.items()
        if (text := root.findtext(f"input/{path}"))
    }
    smearing = root.find("input/bands/smearing")
    if smearing is not None:
        found |= {"smearing": (smearing.text or "")[:1], "degauss": smearing.get("degauss", "")}
    mesh = root.find("input/k_points_IBZ/monkhorst_pack")
    if mesh is not None:
        for name, keys in (("mesh", "nk1 nk2 nk3"), ("shift", "k1 k2 k3")):
            found[f"k-points, {name}"] = " ".join(mesh.get(key, "0") for key in keys.split())
    return found


_PATHS = {
    "ecutwfc": "basis/ecutwfc",
    "ecutrho": "basis/ecutrho",
    "conv_thr": "electron_control/conv_thr",
    "functional": "dft/functional",
    "vdw_corr": "dft/vdW/vdw_corr",
    "occupations": "bands/occupations",
    "lsda": "spin/lsda",
}


def cp2k_differences(text: str, expected: Mapping[str, Any]) -> dict[str, str]:
    """Differences of the output of CP2K, as far as it prints settings or the copy of its input.

    Args:
        text: the output.
        expected: by keyword of the input.
    """
    return differences(cp2k_settings(text, expected), expected)


def cp2k_settings(text: str, names: Iterable[str]) -> dict[str, str]:
    """Settings that the output of CP2K tells, by keyword of the input."""
    found = {}
    for name in names:
        pattern = _LINES.get(name, rf"^ +{re.escape(name)} +(?:\[\w+\] +)?(\S.*?) *$")
        if lines := set(re.findall(pattern, text, re.MULTILINE)):
            found[name] = " and ".join(sorted(lines))
    return found


_LINES = {
    "EPS_SCF": r"^ +eps_scf: +(\S+)$",
    "ELECTRONIC_TEMPERATURE": r"^ +Electronic temperature \[K\]: +(\S+)$",
    "SCHEME MONKHORST-PACK": r"^ +SCHEME +MONKHORST-PACK +(\d+ +\d+ +\d+) *$",
}


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _same(text: str, expected: Any) -> bool:
    """Whether a printed value is that of a setting; words may be cut off, numbers rounded."""
    if isinstance(expected, bool):
        return text.strip(".").upper().startswith("T" if expected else "F")
    if isinstance(expected, str):
        return text != "" and expected.lower().startswith(text.lower())
    try:
        values = np.array(text.split(), dtype=float)
    except ValueError:
        return False
    wanted = np.atleast_1d(np.array(expected, dtype=float))
    rounding = [_rounding(number) for number in text.split()]
    return values.shape == wanted.shape and bool(
        (np.abs(values - wanted) <= 1e-6 * np.abs(wanted) + rounding).all()
    )


def _rounding(text: str) -> float:
    """Half of the last digit of a printed number."""
    mantissa, _, exponent = text.upper().replace("D", "E").partition("E")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
