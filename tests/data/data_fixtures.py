"""What several test files share: small labelled ensembles of alloys that EMT knows.

Worker processes import this module for their tasks: SchNetPack and PyTorch, which take seconds, are
imported only where they are needed.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import ase.db
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.labels.labelling import label_job
from schnetpack_phonon.labels.store import Record
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Antiperovskites

ALLOYS = {"Cu3PdAu": 4.35, "Cu3PtAu": 4.36}  # EMT knows these metals and takes milliseconds


def ensemble_data(folder, ensemble=None, calculator=None, **kwargs):
    from schnetpack.transform import CastTo32, MatScipyNeighborList

    from schnetpack_phonon.data.datamodule import EnsembleData
    from schnetpack_phonon.data.splits import ParentSplit

    arguments = {
        "datapath": str(folder / "data" / "test.db"),
        "structure": Antiperovskites(list(ALLOYS), lattice_constants=ALLOYS),
        "phonons": FiniteDisplacements(Instabilities()),
        "ensemble": ensemble or PhononEnsemble([100, 300], n_snapshots=4, seed=1),
        "calculator": calculator or AseCalculator(EMT),
        "executor": partial(ThreadPoolExecutor, 2),
        "label_store": str(folder / "data" / "labels.jsonl"),
        "batch_size": 2,
        "num_train": 0.5,
        "num_val": 0.25,
        "num_test": 0.25,
        "num_workers": 0,
        "split_file": str(folder / "split.npz"),
        "splitting": ParentSplit(seed=0),
        "transforms": [MatScipyNeighborList(cutoff=4.0), CastTo32()],
    }
    return EnsembleData(**(arguments | kwargs))


def rows(path):
    """Everything in a database that is not a date or a random id."""
    with ase.db.connect(path) as db:
        return [
            {
                "atoms": [row.numbers.tolist(), row.positions.tolist(), row.cell.tolist()],
                "provenance": row.key_value_pairs,
                **{key: np.asarray(value).tolist() for key, value in row.data.items()},
            }
            for row in db.select()
        ]


def record(number: int) -> Record:
    rng = np.random.default_rng(number)
    return Record(f"h{number}", {"energy": rng.normal(size=1), "forces": rng.normal(size=(2, 3))})


def copper(number: int) -> Atoms:
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.rattle(0.05, seed=number)
    return atoms


def labelled_copper(number: int, code: str = "ase 3.25") -> Record:
    """With input, as a run leaves it; every tenth failed."""
    calculator = AseCalculator(EMT)
    job = label_job(calculator, copper(number), f"copper {number}")
    given = replace(job.input, code=code)
    if number % 10 == 0:
        return Record(f"h{number}", None, "CalculationFailed: not converged", given)
    return Record(f"h{number}", calculator.label(given.atoms), None, given)


def failure(number: int) -> Record:
    return Record(f"h{number}", None, "no convergence")


def same(one: Record, other: Record) -> bool:
    """Equal to the last bit, shape and type."""
    if one.labels is None or other.labels is None:
        return one == other
    return one.labels.keys() == other.labels.keys() and all(
        (value.dtype, value.shape, value.tobytes())
        == (other.labels[key].dtype, other.labels[key].shape, other.labels[key].tobytes())
        for key, value in one.labels.items()
    )
