"""Valence orbitals of the elements: shells, electrons, and the energies from which learning starts.

Energies are eigenvalues of the free atoms in the local density approximation, without spin:
S. Kotochigova, Z. H. Levine, E. L. Shirley, M. D. Stiles, C. W. Clark, Atomic Reference Data for
Electronic Structure Calculations, NIST SRD 141; Phys. Rev. A 55, 191 (1997).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ase.data import atomic_numbers
from ase.units import Hartree

SHELLS = "spd"
_PROMOTION = 3.5  # eV

# Shells with their electrons, and eigenvalues in Hartree. Outermost s and p as far as occupied;
# the d shell below them in groups 3 to 12. Metals of groups 1 to 12 get the empty p shell, too:
# conduction bands have it, and it polarizes s. It starts 3.5 eV above s; free atoms need 1.6 (K),
# 2.1 (Na), 3.7 (Ag) and 4 eV (Zn) from s to p (NIST Atomic Spectra Database).
_TABLE = """
H s1 -0.2335; Li s1 -0.1055; Be s2 -0.2057; B s2 -0.3447 p1 -0.1366; C s2 -0.5009 p2 -0.1992;
N s2 -0.6762 p3 -0.2663; O s2 -0.8714 p4 -0.3384; F s2 -1.0869 p5 -0.4156;
Na s1 -0.1034; Mg s2 -0.1754; Al s2 -0.2869 p1 -0.1025; Si s2 -0.3981 p2 -0.1533;
P s2 -0.5124 p3 -0.2061; S s2 -0.6309 p4 -0.2617; Cl s2 -0.7545 p5 -0.3204;
K s1 -0.0888; Ca s2 -0.1414; Sc s2 -0.1565 d1 -0.1311; Ti s2 -0.1671 d2 -0.1700;
V s2 -0.1760 d3 -0.2046; Cr s1 -0.1504 d5 -0.1181; Mn s2 -0.1911 d5 -0.2665;
Fe s2 -0.1980 d6 -0.2950; Co s2 -0.2045 d7 -0.3224; Ni s2 -0.2108 d8 -0.3487;
Cu s1 -0.1721 d10 -0.2023; Zn s2 -0.2227 d10 -0.3989; Ga s2 -0.3280 p1 -0.1016;
Ge s2 -0.4265 p2 -0.1499; As s2 -0.5237 p3 -0.1975; Se s2 -0.6212 p4 -0.2458;
Br s2 -0.7201 p5 -0.2953;
Rb s1 -0.0854; Sr s2 -0.1318; Y s2 -0.1507 d1 -0.1087; Zr s2 -0.1624 d2 -0.1507;
Nb s1 -0.1443 d4 -0.1253; Mo s1 -0.1479 d5 -0.1533; Tc s2 -0.1836 d5 -0.2703;
Ru s1 -0.1528 d7 -0.2104; Rh s1 -0.1546 d8 -0.2394; Ag s1 -0.1574 d10 -0.2987;
Cd s2 -0.2042 d10 -0.4705; In s2 -0.2905 p1 -0.1018; Sn s2 -0.3693 p2 -0.1444;
Sb s2 -0.4456 p3 -0.1856; Te s2 -0.5210 p4 -0.2266; I s2 -0.5963 p5 -0.2679;
Cs s1 -0.0787; Ba s2 -0.1190; La s2 -0.1322 d1 -0.1411; Hf s2 -0.1665 d2 -0.1438;
Ta s2 -0.1748 d3 -0.1825; W s2 -0.1814 d4 -0.2206; Re s2 -0.1869 d5 -0.2586;
Os s2 -0.1915 d6 -0.2968; Ir s2 -0.1955 d7 -0.3352; Pt s1 -0.1613 d9 -0.2736;
Au s1 -0.1623 d10 -0.3047; Hg s2 -0.2051 d10 -0.4526; Tl s2 -0.2850 p1 -0.1015;
Pb s2 -0.3572 p2 -0.1418; Bi s2 -0.4261 p3 -0.1802
"""


@dataclass(frozen=True)
class Orbitals:
    """Valence shells of an element.

    Attributes:
        electrons: in these shells, in the neutral atom.
        energies: of each shell (s, p, d) that the element has, in eV.
    """

    electrons: int
    energies: Mapping[str, float]


def orbitals_of(symbol: str, given: Mapping[str, Mapping[str, float]] | None = None) -> Orbitals:
    """Valence orbitals of an element, from the table or as given.

    Args:
        symbol: of the element.
        given: for elements that the table lacks or that need other shells, the number of valence
            electrons and an energy in eV for each shell:
            ``{"Ag": {"electrons": 11, "s": -4.3, "p": -1.0, "d": -8.1}}``.

    Raises:
        ValueError: if it is no element, is not in the table, or what is given is incomplete.
    """
    if symbol not in atomic_numbers:
        raise ValueError(f"got the element {symbol!r}; expected a chemical symbol, such as 'Ag'")
    if given is not None and symbol in given:
        own = dict(given[symbol])
        electrons = own.pop("electrons", None)
        capacity = sum(2 * (2 * SHELLS.find(shell) + 1) for shell in own if shell in SHELLS)
        if not own or not set(own) <= set(SHELLS) or electrons is None:
            raise ValueError(
                f"orbitals of {symbol} are {dict(given[symbol])}; expected the number of "
                "'electrons' and an energy in eV for each shell, s, p or d, such as "
                "{electrons: 11, s: -4.3, d: -8.1}"
            )
        if electrons != int(electrons) or not 0 <= electrons <= capacity:
            raise ValueError(
                f"{symbol} is given {electrons} electrons; expected a whole number from 0 to "
                f"{capacity}, which its shells {', '.join(own)} hold"
            )
        return Orbitals(int(electrons), {shell: float(energy) for shell, energy in own.items()})
    if symbol not in ELEMENTS:
        raise ValueError(
            f"there are no valence orbitals of {symbol} in the table; expected one of "
            f"{', '.join(ELEMENTS)}, or orbitals={{{symbol}: {{electrons: ..., s: ..., ...}}}} "
            "with energies in eV"
        )
    return ELEMENTS[symbol]


def _read(entry: str) -> tuple[str, Orbitals]:
    symbol, *words = entry.split()
    shells = list(zip(words[::2], words[1::2], strict=True))
    electrons = sum(int(shell[1:]) for shell, _ in shells)
    energies = {shell[0]: float(e) * Hartree for shell, e in shells}
    if symbol != "H":
        energies.setdefault("p", energies["s"] + _PROMOTION)
    return symbol, Orbitals(electrons, energies)


ELEMENTS: dict[str, Orbitals] = dict(map(_read, _TABLE.split(";")))
