"""Stored outputs as they would be with a second spin, whose levels may be higher."""

import re

from ase.units import Hartree


def twice(text: str, pattern: str, change) -> str:
    """With what a pattern finds, followed by the same of another spin."""
    text, count = re.subn(pattern, lambda m: m[0] + change(m[0]), text, flags=re.DOTALL)
    assert count
    return text


def higher(text: str, pattern: str, shift: float) -> str:
    """With larger numbers where a pattern ends."""
    return re.sub(rf"({pattern})(-?\d\S+)", lambda m: f"{m[1]}{float(m[2]) + shift:.8f}", text)


def second_spin_of_vasp(text: str, shift: float) -> str:
    text = text.replace('"ISPIN">     1', '"ISPIN">     2')
    block = r' *<set comment="spin 1">.*?\n     </set>\n'

    def down(old: str) -> str:
        return higher(old.replace("spin 1", "spin 2"), "<r> +", shift)

    return twice(text, block, down)


def second_spin_of_espresso(text: str, shift: float) -> str:
    text = text.replace("<lsda>false", "<lsda>true")
    for tag, own in (("eigenvalues", shift / Hartree), ("occupations", 0.0)):
        block = rf"(?<=<{tag} size=\"8\">).*?(?=</{tag}>)"
        text = twice(text, block, lambda old, own=own: higher(" " + old, r"\s", own))
    return text


def second_spin_of_cp2k(text: str, shift: float) -> str:
    rows = r" MO\| EIGENVALUES.*? MO\| Sum"
    text = re.sub(r"(MO\|\s+\d+\s+\S+\s+\S+\s+)2\.0", r"\g<1>1.0", text)
    text = re.sub(r" Number of electrons: +8", " Number of electrons: 4", text)
    text = twice(text, r" Number of electrons: 4\n", str)

    def down(old: str) -> str:
        return "\n" + higher(old.replace("MO| EIG", "MO| BETA EIG"), r"MO\| +\d+ +\S+ +", shift)

    text = twice(text, rows, down)
    return text.replace("MO| EIG", "MO| ALPHA EIG")


def second_spin_of_bands(text: str, shift: float) -> str:
    def down(old: str) -> str:
        return higher(old.replace("Spin 1", "Spin 2"), r"\n +\d+ +", shift)

    return twice(text, r"#  Point 1 .*", down)


#: Code -> file -> text and shift of the levels in eV -> text.
SPINS = {
    "VASP": {"vasprun.xml": second_spin_of_vasp},
    "Quantum ESPRESSO": {"label.xml": second_spin_of_espresso},
    "CP2K": {"label.out": second_spin_of_cp2k, "bands": second_spin_of_bands},
}
