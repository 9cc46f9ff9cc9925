"""Keys and units agree with the host; values of two crystals collate along a structure axis."""

import numpy as np
import pytest
import schnetpack.properties as host
import torch
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.units import convert_units

from schnetpack_phonon.common import properties
from schnetpack_phonon.common.properties import (
    PROPERTIES,
    Property,
    array_shape,
    element_names,
    label,
    property_of,
)


@pytest.mark.parametrize("key", PROPERTIES)
def test_host_converts_to_the_report_unit(key):
    prop = PROPERTIES[key]
    unit = prop.report_unit.replace("Å", "Ang")
    milli, unit = (
        (1e3, unit[1:]) if unit.startswith("meV") else (1.0, unit)
    )  # the host knows no prefixes
    factor = convert_units(prop.unit, unit) * milli
    assert factor == pytest.approx(prop.report_factor, rel=1e-7)


def test_keys_are_the_ones_of_the_host():
    """The host's own outputs (Forces, Strain) and losses find our columns."""
    assert (properties.energy, properties.forces, properties.stress) == (
        host.energy,
        host.forces,
        host.stress,
    )


@pytest.mark.parametrize("key", PROPERTIES)
def test_two_structures_collate(key):
    """Per-atom values are concatenated, all others are stacked: (2, ...), never (2 x 3, ...)."""
    batch = _atoms_collate_fn(
        [
            {host.n_atoms: torch.tensor([n]), key: torch.tensor(np.zeros(array_shape(key, n)))}
            for n in (2, 5)
        ]
    )
    tail = [n or 1 for n in PROPERTIES[key].shape if n != "N"]
    assert list(batch[key].shape) == [7 if "N" in PROPERTIES[key].shape else 2, *tail]


def test_unknown_property_is_a_number_called_like_its_key():
    assert property_of("band_gap") is PROPERTIES["band_gap"]
    assert property_of("other") == Property((), "", "other", "")
    assert label("other") == "other"


def test_elements_are_named_in_order():
    assert element_names({47, 16, 35}) == "Ag, Br, S"
