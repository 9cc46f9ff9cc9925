"""The examples run, in a small version, as a user would call them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
BRIEF = (
    "trainer.max_epochs=2",
    "+trainer.enable_progress_bar=false",
    "data.executor.max_workers=1",
)
FEW_BONDS = ("callbacks.bond_attribution.n_steps=2", "callbacks.bond_attribution.max_structures=1")

# C11, C12 and C44 in GPa by matscipy.elasticity.fit_elastic_constants (1.3.1, delta=0.002).
EMT_OF_CU3AU = [181, 127, 79]


def run(name, folder, *arguments):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", EXAMPLES / name, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PATH": path, "PWD": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not shutil.which("sh"), reason="needs a shell")
def test_first_run_and_gap_against_temperature(tmp_path):
    small = (
        "data.structure.names=[Ag3SBr]",
        "data.ensemble.temperatures=[300]",
        "data.ensemble.n_snapshots=12",
    )
    said = run("1_first_run.sh", tmp_path, *small, *BRIEF, *FEW_BONDS)
    assert "band gap" in said
    assert (tmp_path / "runs" / "first" / "figures" / "parity.png").is_file()
    said = run("5_temperature.sh", tmp_path, "-n", 4, "-t", 300)
    assert "the band gap changes by" in said
    assert (tmp_path / "thermal" / "index.html").is_file()


def test_my_crystal(tmp_path):
    said = run("2_my_crystal.sh", tmp_path, "data.ensemble.n_snapshots=5", *BRIEF)
    assert "energy per atom" in said
    assert (tmp_path / "data" / "Cu3Au_phonon_preview" / "preview.md").is_file()
    assert (tmp_path / "runs" / "mine" / "best_model").is_file()


def test_cluster(tmp_path):
    said = run("3_cluster.sh", tmp_path, "data.ensemble.n_snapshots=5", *BRIEF)
    assert "finished, now in the label store" in said
    assert "10 structures" in said
    assert (
        tmp_path / "runs" / "cluster" / "figures" / "energy_per_atom_distribution.png"
    ).is_file()


def test_elastic(tmp_path):
    said = run("6_elastic.sh", tmp_path, "data.ensemble.n_snapshots=5", *BRIEF)
    emt = next(line for line in said.splitlines() if line.startswith("EMT"))
    assert [int(value) for value in emt.split()[1:4]] == EMT_OF_CU3AU
    assert "ElasticResponse: " in said
    assert (tmp_path / "elastic.png").is_file()


def test_bonds_of_two_models(tmp_path):
    said = run("4_bonds.sh", tmp_path, "data.structure.names=[Ag3SBr]", *BRIEF, *FEW_BONDS)
    assert "different runs correlate with r" in said
    assert (tmp_path / "bonds" / "figures" / "bonds_3d_models.png").is_file()
    for name in ("phonon", "random"):
        assert (tmp_path / "bonds" / name / "bonds.dump").is_file()
