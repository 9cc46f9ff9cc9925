"""Elastic tensors of trained runs against the labels of their test structures.

Mean relative Frobenius errors of the output ``elastic_tensor``, of second derivatives of the same
model's energy, of always predicting the mean of the training structures of the same crystal, and of
all; and how far second derivatives are from differences of the model's own stress.

    spktrain experiment=phonon_elastic run.id=head seed=1
    spktrain experiment=phonon_elastic_response run.id=response seed=1
    python -m tests.benchmarks.elastic runs/head runs/response
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.db import connect
from ase.units import GPa

from schnetpack_phonon.common.properties import elastic_tensor
from schnetpack_phonon.evaluation.runs import read_run
from schnetpack_phonon.models.elastic_response import ElasticResponse, with_elastic_response
from schnetpack_phonon.models.predict import Predictor
from schnetpack_phonon.models.task import RelativeFrobeniusError
from schnetpack_phonon.structures.elasticity import finite_strain_tensor, finite_strains, strained

RESPONSE = "second_derivatives"
STEP = 1e-4
N_DIFFERENCES = 3


def errors(folder: Path) -> dict[str, float]:
    """Of one run; fractions, not percent."""
    run = read_run(folder)
    rows = [*connect(run.datapath).select()]
    train, test = ([rows[k] for k in part] for part in (run.train_idx, run.test_idx))
    labels = {row.id: np.reshape(row.data[elastic_tensor], (6, 6)) for row in rows}
    truth = np.array([labels[row.id] for row in test])

    def mean(formula: str = "") -> np.ndarray:
        return np.mean([labels[r.id] for r in train if formula in ("", r.formula)], axis=0)

    model = Predictor(folder).model.double()
    predictor = Predictor(with_elastic_response(model, ElasticResponse(clamped_key=RESPONSE)))
    structures = [row.toatoms() for row in test]
    found = predictor(structures)
    second = np.array([each[RESPONSE] for each in found])
    some = [_differences(predictor, atoms) for atoms in structures[:N_DIFFERENCES]]
    return {
        "train": len(train),
        "test": len(test),
        elastic_tensor: _relative(np.array([each[elastic_tensor] for each in found]), truth),
        "second derivatives": _relative(second, truth),
        "crystal's mean": _relative(np.array([mean(row.formula) for row in test]), truth),
        "mean of all": _relative(mean(), truth),
        "differences": _relative(second[: len(some)], np.array(some)),
    }


def _relative(found: np.ndarray, truth: np.ndarray) -> float:
    error = RelativeFrobeniusError()
    error.update(torch.as_tensor(found), torch.as_tensor(truth))
    return error.compute().item()


def _differences(predictor: Predictor, atoms: Atoms) -> np.ndarray:
    """Elastic tensor from finite differences of the model's own stress, GPa."""
    copies = [strained(atoms, strain) for strain in finite_strains(STEP).reshape(-1, 3, 3)]
    stresses = [each["stress"] for each in predictor(copies)]
    return finite_strain_tensor(np.reshape(stresses, (6, 2, 3, 3)) / GPa, STEP)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    torch.set_num_threads(1)
    runs = parser.parse_args().runs
    table = pd.DataFrame([errors(run) for run in runs], index=[run.name for run in runs])
    formats = {"differences": "{:.0e}".format}
    print(table.to_string(float_format="{:.2%}".format, formatters=formats))


if __name__ == "__main__":
    main()
