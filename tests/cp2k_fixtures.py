"""What CP2K 2023.1 wrote, and an executable that writes it again.

``tests/data/cp2k`` holds its output for :func:`aluminium_phosphide` and 4 empty bands, at Gamma and
with a mesh, less its tables of settings, references and times.
"""

import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from schnetpack_phonon.cp2k import CP2K

STORED = Path(__file__).parent / "data" / "cp2k"
MESHES = {"gamma": (1, 1, 1), "mesh": (2, 2, 2)}
needs_cp2k = pytest.mark.skipif(shutil.which(CP2K().command) is None, reason="CP2K not installed")


def aluminium_phosphide() -> Atoms:
    """Two atoms without any symmetry."""
    atoms = bulk("AlP", "zincblende", a=5.46)
    shear = [[0.02, 0.03, 0.0], [0.0, 0.0, 0.02], [0.01, 0.0, -0.01]]
    atoms.set_cell(atoms.cell @ (np.eye(3) + shear), scale_atoms=True)
    atoms.rattle(0.1, seed=3)
    return atoms


@pytest.fixture
def output(tmp_path):
    """A stored output of which ``pattern`` is replaced -> folder that holds it."""

    def make(kind: str, pattern: str, replacement: str, name: str = "label.out") -> Path:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        shutil.copytree(STORED / kind, folder, dirs_exist_ok=True)
        text, count = re.subn(pattern, replacement, (folder / name).read_text(), flags=re.DOTALL)
        assert count, f"{pattern} is not in {name}"
        (folder / name).write_text(text)
        return folder

    return make


_EXECUTABLE = """#!/bin/sh
[ "$1" = --version ] && echo " CP2K version 2023.1" && exit
echo "$OMP_NUM_THREADS threads" $(grep ALPHA label.inp) >> {log}
cp {answers}/$(wc -l < {log} | tr -d " ")/* .
exit 1
"""


@pytest.fixture
def fake(tmp_path):
    """Folders -> an executable whose n-th run writes the files of the n-th of them."""

    def make(*folders: Path) -> str:
        answers = Path(tempfile.mkdtemp(dir=tmp_path))
        for number, folder in enumerate(folders, 1):
            shutil.copytree(folder, answers / str(number))
        executable = answers / "cp2k"
        executable.write_text(_EXECUTABLE.format(log=tmp_path / "log", answers=answers))
        executable.chmod(0o755)
        (tmp_path / "log").unlink(missing_ok=True)
        return str(executable)

    make.runs = lambda: (tmp_path / "log").read_text().splitlines()
    return make
