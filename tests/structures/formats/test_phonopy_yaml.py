"""Cells in files of phonopy, whatever else is in them."""

import lzma

import numpy as np
import pytest
from ase import units

from schnetpack_phonon.structures.files import read_structure
from schnetpack_phonon.structures.formats.phonopy_yaml import (
    is_yaml,
    phonopy_unitcell,
    read_phonopy_yaml,
)
from tests.phonons.force_constants_fixtures import phonopy_of, save


@pytest.mark.parametrize(("code", "length"), [(None, 1.0), ("qe", units.Bohr)])
def test_unit_cells_are_in_angstrom(tmp_path, rock_salt, code, length):
    save(phonopy_of(rock_salt, calculator=code, length=length), tmp_path / "phonopy_disp.yaml")
    for found in (
        phonopy_unitcell(tmp_path / "phonopy_disp.yaml"),
        read_structure(tmp_path / "phonopy_disp.yaml"),
    ):
        np.testing.assert_allclose(found.cell.array, rock_salt.unitcell.cell.array, atol=1e-6)
        np.testing.assert_allclose(found.positions, rock_salt.unitcell.positions, atol=1e-6)
        assert found.info["supercell"] == [list(row) for row in rock_salt.supercell_matrix]


def test_compressed_files(tmp_path, rock_salt):
    save(phonopy_of(rock_salt), tmp_path / "phonopy.yaml")
    packed = tmp_path / "phonopy.yaml.xz"
    packed.write_bytes(lzma.compress((tmp_path / "phonopy.yaml").read_bytes()))
    assert is_yaml(packed)
    assert not is_yaml(tmp_path / "POSCAR")
    assert read_phonopy_yaml(packed).unitcell.symbols == ["Na", "Cl"]


def test_tags_run_nothing(tmp_path):
    path = tmp_path / "phonopy.yaml"
    path.write_text("phonopy: !!python/object/apply:os.system ['touch ran']\n")
    with pytest.raises(ValueError, match=r"phonopy.yaml"):
        read_structure(path, format="phonopy")
    assert not (tmp_path / "ran").exists()
