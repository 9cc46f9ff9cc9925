"""Hashes in numbers: keys of labels, names of databases and of caches depend on them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from schnetpack_phonon.common import digests


def test_hash_of_parts():
    array = np.arange(6.0).reshape(2, 3).T  # not contiguous: its elements count, row by row
    expected = hashlib.sha256(b"a\xc3\xa9" + b"b" + np.ascontiguousarray(array).tobytes())
    assert digests.hash_of("aé", b"b", array) == expected.hexdigest()


def test_values_are_frozen():
    """Label stores of users have them as keys."""
    assert digests.settings_hash({"b": 1, "a": [0.5, None]}) == "h7be76337a4b4fbe9"
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    assert digests.structure_hash(atoms) == "af6455d6f06c35731c0d0659"
    assert digests.structure_digest(atoms) == "7b25224e3c2514d3"


@pytest.mark.parametrize(
    ("function", "below", "above"),
    [(digests.structure_hash, 2e-11, 1e-9), (digests.structure_digest, 2e-6, 1e-4)],
)
def test_structures_are_told_apart(function, below, above):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    negative, near, far, other = (atoms.copy() for _ in range(4))
    negative.positions *= [1, -1, 1]  # -0.0
    near.positions += below
    far.positions[1] += above
    other.numbers[0] = 19
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array * (1 + above))
    assert function(negative) == function(near) == function(atoms)
    assert len({function(a) for a in (atoms, far, other, strained)}) == 4


@pytest.mark.parametrize("name", ["initial_magmoms", "initial_charges", "tags"])
def test_properties_of_atoms_that_change_labels(name):
    """Where they are zero, keys are those of atoms without; masses are in no key."""
    plain = bulk("NaCl", "rocksalt", a=5.6)
    zero, one, other = (plain.copy() for _ in range(3))
    for atoms, values in ((zero, [0, 0]), (one, [1, -1]), (other, [-1, 1])):
        atoms.set_array(name, np.array(values))
    zero.set_masses([22.0, 37.0])
    assert digests.structure_hash(zero) == digests.structure_hash(plain)
    assert len({digests.structure_hash(atoms) for atoms in (plain, one, other)}) == 3


def test_files(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    assert digests.file_digest(one) == hashlib.sha256(b"1").hexdigest()
    found = digests.contents_digest([one, Path(tmp_path, "absent"), other])
    assert found == hashlib.sha256(b"12").hexdigest()[:16]
