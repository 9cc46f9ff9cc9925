"""Text files of forces against their numbers; files that do not fit are named."""

import numpy as np
import pytest

from schnetpack_phonon.structures.formats.phonopy_forces import n_rows, read_forces

TWO = """\
# File: 1
# 2      0.0300000000000000   0.0000000000000000  -1.0e-2
  -0.6458483000    0.0223064300   -0.0143299700
   0.6458483000   -0.0223064300    0.0143299700
# File: 2
# 1      0.0000000000000000   0.0300000000000000   0.0000000000000000
   0.1 0.2 0.3
  -0.1 -0.2 -0.3
"""


def test_forces_of_displaced_atoms(tmp_path):
    (tmp_path / "FORCES_FC2").write_text(TWO)
    found = read_forces(tmp_path / "FORCES_FC2", 2)
    assert [own["number"] for own in found["first_atoms"]] == [1, 0]
    np.testing.assert_array_equal(found["first_atoms"][0]["displacement"], [0.03, 0, -0.01])
    np.testing.assert_array_equal(
        found["first_atoms"][1]["forces"], [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]]
    )


def test_displacements_of_all_atoms(tmp_path):
    rows = np.random.default_rng(0).normal(size=(3, 2, 6))
    np.savetxt(tmp_path / "FORCES_FC2", rows.reshape(6, 6))
    found = read_forces(tmp_path / "FORCES_FC2", 2)
    np.testing.assert_allclose(found["displacements"], rows[..., :3])
    np.testing.assert_allclose(found["forces"], rows[..., 3:])


@pytest.mark.parametrize(
    ("text", "n_atoms", "named"),
    [
        (TWO, 3, "4 forces; expected those of 3 atoms"),
        (TWO.replace("# 1 ", "# "), 2, "forces of 2 supercells and comments about 1 displaced"),
    ],
)
def test_forces_without_their_displacements_are_refused(tmp_path, text, n_atoms, named):
    (tmp_path / "FORCES_FC2").write_text(text)
    with pytest.raises(ValueError, match=named):
        read_forces(tmp_path / "FORCES_FC2", n_atoms)


def test_number_of_atoms_with_force_constants(tmp_path):
    (tmp_path / "FORCE_CONSTANTS").write_text("2 16\n")
    assert n_rows(tmp_path / "FORCE_CONSTANTS", None) == 2
    assert n_rows(None, np.zeros((4, 16, 3, 3))) == 4
    assert n_rows(None, None) is None
