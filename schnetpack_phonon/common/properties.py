"""Keys, shapes and units of database columns and model outputs.

The units of all keys are defined here only. Conventions: energies in eV, lengths in Angstrom,
stress with ASE's sign (``sigma = dE/deps / V``; a compressed crystal has negative stress) as a full
3x3 tensor, elastic tensors as 6x6 in the order xx yy zz yz xz xy with engineering shear, cell
vectors as rows, temperatures in K, frequencies in THz. Units are written so that
:func:`schnetpack.units.convert_units` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase.data import chemical_symbols

from schnetpack_phonon.common.errors import UnitError

energy: Final = "energy"  #: total energy of the cell
energy_per_atom: Final = "energy_per_atom"  #: total energy / number of atoms
forces: Final = "forces"  #: minus the gradient of the energy
stress: Final = "stress"  #: Cauchy stress tensor, ASE's sign
hydrostatic_stress: Final = "hydrostatic_stress"  #: trace(stress) / 3
band_gap: Final = "band_gap"  #: conduction band minimum minus valence band maximum
vbm: Final = "vbm"  #: valence band maximum, relative to the code's own zero
band_gap_gamma: Final = "band_gap_gamma"  #: the gap at Gamma alone, where band_gap is over k
band_gap_spin: Final = "band_gap_spin"  #: gap of spin up and of spin down, where these differ
partial_occupation: Final = "partial_occupation"  #: largest min(f, 2 - f) of an orbital, f of 2
PARTLY_FILLED: Final = 0.01  #: partial_occupation above which a structure is flagged, in electrons
cbm: Final = "cbm"  #: conduction band minimum, relative to the code's own zero
levels: Final = "eigenvalues"  #: next to the gap at each k-point, relative to the code's own zero
kpoints: Final = "kpoints"  #: of levels: fractions of the reciprocal cell and weight, of 1
elastic_tensor: Final = "elastic_tensor"  #: clamped-ion: atoms keep their fractions of the cell
elastic_tensor_relaxed: Final = "elastic_tensor_relaxed"  #: relaxed-ion: atoms relax at each strain
universal_anisotropy: Final = "universal_anisotropy"  #: of elastic_tensor, 0 if isotropic
softest_stiffness: Final = "softest_stiffness"  #: smallest eigenvalue of elastic_tensor
ideal_positions: Final = "ideal_positions"  #: positions of the undisplaced crystal, same order
ideal_cell: Final = "ideal_cell"  #: cell of the undisplaced crystal

DISTANCE: Final = "distance"  #: lengths, among the units of a model or database
DISTANCE_UNIT: Final = "Ang"
SCHNETPACK_UNITS: Final = "_property_unit_dict"  #: in the metadata of its databases
Labels = dict[str, np.ndarray]  #: of one structure, by key


@dataclass(frozen=True)
class Property:
    """One database column.

    Attributes:
        shape: shape of one structure's value; ``"N"`` stands for the number of atoms, None for a
            size that options of the calculator set. Values without an ``"N"`` have a leading axis
            of length 1 in the database, so that SchNetPack's collate function stacks structures.
        unit: unit in the database.
        label: how figures and tables name it.
        report_unit: unit in figures and tables.
        report_factor: database unit -> report unit.
        arbitrary_zero: only differences within one crystal have a meaning; figures show the
            value minus the crystal's mean.
    """

    shape: tuple[int | str | None, ...]
    unit: str
    label: str
    report_unit: str
    report_factor: float = 1.0
    arbitrary_zero: bool = False


_EV_PER_ANG3_IN_GPA: Final = 160.21766208

PROPERTIES: Final[dict[str, Property]] = {
    energy: Property((), "eV", "energy", "eV", arbitrary_zero=True),
    energy_per_atom: Property((), "eV", "energy per atom", "meV", 1e3, arbitrary_zero=True),
    forces: Property(("N", 3), "eV/Ang", "forces", "meV/Å", 1e3),
    stress: Property((3, 3), "eV/Ang/Ang/Ang", "stress", "GPa", _EV_PER_ANG3_IN_GPA),
    hydrostatic_stress: Property(
        (), "eV/Ang/Ang/Ang", "hydrostatic stress", "GPa", _EV_PER_ANG3_IN_GPA
    ),
    band_gap: Property((), "eV", "band gap", "eV"),
    band_gap_gamma: Property((), "eV", "band gap at Γ", "eV"),
    band_gap_spin: Property((2,), "eV", "band gap of each spin", "eV"),
    partial_occupation: Property((), "", "partial occupation", ""),
    vbm: Property((), "eV", "VBM", "eV", arbitrary_zero=True),
    cbm: Property((), "eV", "CBM", "eV", arbitrary_zero=True),
    # As many levels below as above the gap; NaN where a structure has fewer k-points than others.
    levels: Property((None, None), "eV", "levels at the gap", "eV", arbitrary_zero=True),
    kpoints: Property((None, 4), "", "k-points", ""),
    elastic_tensor: Property((6, 6), "GPa", "elastic tensor, clamped ions", "GPa"),
    elastic_tensor_relaxed: Property((6, 6), "GPa", "elastic tensor, relaxed ions", "GPa"),
    universal_anisotropy: Property((), "", "universal anisotropy", ""),
    softest_stiffness: Property((), "GPa", "softest stiffness", "GPa"),
    ideal_positions: Property(("N", 3), "Ang", "ideal positions", "Å"),
    ideal_cell: Property((3, 3), "Ang", "ideal cell", "Å"),
}

#: Moduli of elastic_tensor, by the averages of Voigt, Reuss and Hill: ``bulk_modulus_voigt`` ...
MODULI: Final[dict[str, Property]] = {
    f"{name}_{average.lower()}": Property((), unit, f"{name.replace('_', ' ')} ({average})", unit)
    for name, unit in (
        ("bulk_modulus", "GPa"),
        ("shear_modulus", "GPa"),
        ("young_modulus", "GPa"),
        ("poisson_ratio", ""),
    )
    for average in ("Voigt", "Reuss", "Hill")
}
PROPERTIES.update(MODULI)


def array_shape(key: str, n_atoms: int) -> tuple[int, ...]:
    """Shape of ``key`` in the database for a structure of ``n_atoms`` atoms, 1 for any size."""
    shape = tuple(n_atoms if n == "N" else int(n or 1) for n in PROPERTIES[key].shape)
    return shape if "N" in PROPERTIES[key].shape else (1, *shape)


def property_of(key: str) -> Property:
    """The property of a key; for an unknown key a number without unit that is called like it."""
    return PROPERTIES.get(key) or Property((), "", key, "")


def label(key: str) -> str:
    """Name of a key in tables and figures."""
    return property_of(key).label


def unit(key: str) -> str:
    """Unit of a key in tables and figures."""
    return PROPERTIES[key].report_unit if key in PROPERTIES else "its unit"


def element_names(numbers: Iterable[int]) -> str:
    """Elements with these atomic numbers, in a message."""
    return ", ".join(sorted(chemical_symbols[z] for z in numbers))


def expected(key: str) -> str:
    """The unit of a property in this package; of ``distance``, Ang."""
    return DISTANCE_UNIT if key == DISTANCE else PROPERTIES[key].unit


def factor(unit: str | None, other: str) -> float:
    """How many ``other`` one ``unit`` is.

    Raises:
        UnitError: if SchNetPack does not know it.
    """
    # Here, as it loads torch, which databases of this package do without.
    from schnetpack.units import convert_units

    try:
        value = float(convert_units(unit, other))
    except (AttributeError, KeyError, SyntaxError, TypeError, ValueError, Warning):
        value = np.nan  # Warning: for "A", which is Ampere there
    if not 0 < value < np.inf:
        raise UnitError(f"{unit!r} is no unit that SchNetPack converts to {other!r}")
    return value


def stored_units(metadata: Mapping[str, Any]) -> dict[str, str | None]:
    """Units of the properties in a database, and of ``distance``; Ang, ASE's, where it is not said.

    Args:
        metadata: of the database.
    """
    length = metadata.get("_distance_unit", DISTANCE_UNIT)
    return {DISTANCE: length, **metadata.get(SCHNETPACK_UNITS, {})}


def unit_factor(key: str, unit: str | None, path: str | Path) -> float:
    """What values in ``unit`` are multiplied with for ours; 1 for properties that are not ours.

    Args:
        key: of the property; ``distance`` for positions and cells.
        unit: as SchNetPack writes it, such as ``kcal/mol``.
        path: of the database or run, for the message.

    Raises:
        UnitError: if SchNetPack does not know the unit.
    """
    if key != DISTANCE and key not in PROPERTIES:
        return 1.0
    ours = expected(key)
    if unit == ours:
        return 1.0
    try:
        return factor(unit, ours)
    except UnitError as error:
        raise UnitError(
            f"{path}: {key} is in {unit!r}; expected {ours!r} or a unit of SchNetPack that can "
            "be converted to it: correct the units in its metadata"
        ) from error
