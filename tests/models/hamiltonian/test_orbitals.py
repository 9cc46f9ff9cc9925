"""The table of valence orbitals, and orbitals that are given."""

from __future__ import annotations

import pytest
from ase.data import atomic_numbers

from schnetpack_phonon.models.hamiltonian.orbitals import ELEMENTS, orbitals_of


def test_table_is_that_of_free_atoms():
    """Eigenvalues of 4d and 5s of silver and 3s and 3p of sulphur in the database, in eV.

    The empty 5p of silver starts within 0.3 eV of the resonance lines at 3.66 and 3.78 eV.
    """
    silver, sulphur = orbitals_of("Ag"), orbitals_of("S")
    assert silver.electrons == 11
    assert silver.energies["p"] - silver.energies["s"] == pytest.approx(3.72, abs=0.3)
    own = {shell: silver.energies[shell] for shell in "sd"}
    assert own == pytest.approx({"s": -4.283, "d": -8.128}, abs=2e-3)
    assert sulphur.electrons == 6
    assert sulphur.energies == pytest.approx({"s": -17.168, "p": -7.121}, abs=2e-3)


def test_electrons_follow_from_the_group():
    """Those outside of noble-gas cores and, right of the transition metals, of filled d shells."""
    cores = [0, 2, 10, 18, 36, 54]
    for symbol, own in ELEMENTS.items():
        number = atomic_numbers[symbol]
        outside = number - max(core for core in cores if core < number)
        outside -= 14 if number > 71 else 0
        expected = outside - 10 if outside > 12 else outside
        assert own.electrons == expected, symbol


def test_given_orbitals_come_first():
    given = {"Ag": {"electrons": 11, "s": -4.0, "p": -1.0, "d": -7.0}}
    assert orbitals_of("Ag", given).energies == {"s": -4.0, "p": -1.0, "d": -7.0}
    assert orbitals_of("S", given) == orbitals_of("S")


@pytest.mark.parametrize(
    ("symbol", "given", "message"),
    [
        ("Xx", None, "got the element 'Xx'; expected a chemical symbol"),
        ("Ce", None, "no valence orbitals of Ce in the table.*orbitals="),
        ("Ag", {"Ag": {"s": -4.0}}, "expected the number of 'electrons' and an energy"),
        ("Ag", {"Ag": {"electrons": 1}}, "expected the number of 'electrons' and an energy"),
        ("Ag", {"Ag": {"electrons": 1, "f": -4.0}}, "each shell, s, p or d"),
        ("Ag", {"Ag": {"electrons": 3, "s": -4.0}}, "whole number from 0 to 2"),
        ("Ag", {"Ag": {"electrons": 0.5, "s": -4.0}}, "whole number from 0 to 2"),
    ],
)
def test_unusable_orbitals_are_named(symbol, given, message):
    with pytest.raises(ValueError, match=message):
        orbitals_of(symbol, given)
