"""A finished run whose model is a Hamiltonian that starts from free atoms, and its database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from ase.build import bulk

from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.trained.weights import write_weights
from tests.models.model_fixtures import CUTOFF, data_module, potential
from tests.models.trained.trained_fixtures import model_config

ELEMENTS = ("Ag", "Br")
ORBITALS = {"Ag": {"electrons": 11, "s": -4.3, "d": -8.1}}
STRUCTURES = [bulk("AgBr", "rocksalt", 5.4) for _ in range(4)]
for k, atoms in enumerate(STRUCTURES):
    atoms.rattle(0.1, seed=k)
LABELS = {"band_gap": 0.7, "vbm": -7.1, "cbm": -6.4}
PACKAGE = "schnetpack_phonon.models.hamiltonian"


def write_run(folder: Path, elements: Sequence[str] = ELEMENTS) -> Path:
    """``folder/run`` with ``folder/data/labels.db``, three of whose four rows train."""
    (folder / "data").mkdir(parents=True)
    path, run = folder / "data" / "labels.db", folder / "run"
    data_module(path, STRUCTURES, [0, 1, 2], **{k: np.full(4, v) for k, v in LABELS.items()})
    run.mkdir()
    head = HamiltonianEdges(elements, CUTOFF, orbitals=ORBITALS)
    model = potential(head, representation="NoFeatures")
    head.hamiltonian.reset_parameters()
    options = {"elements": [*elements], "cutoff": CUTOFF, "orbitals": ORBITALS}
    config = model_config({"_target_": f"{PACKAGE}.HamiltonianEdges", **options})
    config["representation"] = {"_target_": f"{PACKAGE}.NoFeatures", "cutoff": CUTOFF}
    torch.save(model, run / "best_model")
    torch.save({}, run / "best_model.task")
    write_weights(model, run / "best_model", config)
    np.savez(run / "split.npz", train_idx=[0, 1, 2], val_idx=[], test_idx=[3])
    content = {
        "globals": {"model_path": "best_model"},
        "run": {"work_dir": "."},
        "data": {"datapath": "${run.work_dir}/data/labels.db"},
        "task": {"outputs": [{"name": key} for key in LABELS]},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    return run
