"""A new ensemble, calculator, head and figure from outside the package, as the page tells."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from schnetpack_phonon.data import read_labels, read_metadata, read_provenance

PAGE = Path(__file__).parents[1] / "examples" / "development.md"
SMALL = [
    "trainer.max_epochs=1",
    "+trainer.enable_progress_bar=false",
    "model.representation.n_atom_basis=8",
    "data.ensemble.n_snapshots=5",
    "data.executor.max_workers=1",
    "data.structure.supercell=[1,1,1]",
]


@pytest.fixture
def toys(tmp_path):
    """The folder with the files of the page and a crystal."""
    files = re.findall(r"`(\S+)`:\n\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(files) == 5
    for name, text in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    bulk("Cu", cubic=True).write(tmp_path / "POSCAR")
    return tmp_path


def test_all_four_in_one_run_of_the_main_job(toys):
    path = os.pathsep.join([str(toys), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [Path(sys.executable).parent / "spktrain", "experiment=toys", "run.id=toys", *SMALL],
        cwd=toys,
        env=os.environ | {"PYTHONPATH": path, "PWD": str(toys), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (database,) = (toys / "data").glob("*.db")
    assert read_metadata(database)["parameters"] == {"one_atom": ["amplitude", "Å"]}
    assert list(read_provenance(database)["amplitude"]) == 5 * [0.1] + 5 * [0.2]
    gaps = read_labels(database)["band_gap"]
    assert np.ptp(gaps) > 0.1
    assert gaps.min() > 1.0
    assert (toys / "runs" / "toys" / "gaps.png").is_file()
    assert "| band gap" in (toys / "runs" / "toys" / "report.md").read_text()
    assert "my_toys.SoftplusGap" in (toys / "runs" / "toys" / "config.yaml").read_text()
