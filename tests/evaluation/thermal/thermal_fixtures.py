"""A run on one alloy with EMT labels whose phonons are in its label store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from schnetpack_phonon.common.executors import process_pool
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.structures.crystals import Antiperovskites
from tests.data.data_fixtures import ensemble_data
from tests.evaluation.comparison.comparison_fixtures import write_run

LATTICE = 4.35


def thermal_run(folder: Path, seed: int, heads: Sequence[nn.Module] = ()) -> Path:
    """A finished run with random weights, and its database of eight snapshots a temperature."""
    path = folder / "data" / "alloy.db"
    if not path.exists():
        data = ensemble_data(
            folder,
            PhononEnsemble([100, 300], n_snapshots=8, seed=1),
            datapath=str(path),
            structure=Antiperovskites(["Cu3PdAu"], lattice_constants={"Cu3PdAu": LATTICE}),
            executor=partial(process_pool, max_workers=1),
        )
        data.prepare_data()
    config = {
        "data": {
            "datapath": "${run.work_dir}/data/alloy.db",
            "label_store": "${run.work_dir}/data/labels.jsonl",
            "structure": {
                "_target_": "schnetpack_phonon.structures.crystals.Antiperovskites",
                "names": ["Cu3PdAu"],
                "lattice_constants": {"Cu3PdAu": LATTICE},
            },
            "phonons": {
                "_target_": "schnetpack_phonon.phonons.force_constants.FiniteDisplacements",
                "instabilities": {
                    "_target_": "schnetpack_phonon.phonons.instabilities.Instabilities"
                },
            },
            "calculator": {
                "_target_": "schnetpack_phonon.calculators.base.AseCalculator",
                "factory": {"_target_": "ase.calculators.emt.EMT", "_partial_": True},
            },
        }
    }
    run = folder / "runs" / str(seed)
    return write_run(run, path, seed, range(0, 16, 2), [1], config=config, heads=heads)
