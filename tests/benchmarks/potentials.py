"""A potential beside the PBEsol labels of the package: phonons, and forces of thermal snapshots.

    python -m tests.benchmarks.potentials

needs SevenNet (``pip install "schnetpack_phonon[sevennet]"``), and no CP2K.
"""

from __future__ import annotations

import logging
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from ase.units import GPa

from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.calculators.potentials.sevennet import SevenNet
from schnetpack_phonon.common.page import markdown_table, strings
from schnetpack_phonon.data.datamodule import EnsembleData
from schnetpack_phonon.data.preparation import prepare
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.phonons.compared import compared
from schnetpack_phonon.labels.labelling import Planner
from schnetpack_phonon.labels.store import LabelStore
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Antiperovskites

NAMES = ("Ag3SBr", "Ag3SI", "Ag3SeBr", "Ag3SeI")
DISTANCE = 0.06  # Ang, of the force constants of the package
TEMPERATURE = 300.0  # K


def shipped(folder: Path) -> EnsembleData:
    """The ten phonon snapshots of each crystal at one temperature."""
    return EnsembleData(
        folder / "snapshots.db",
        Antiperovskites(list(NAMES), [2, 2, 2]),
        PhononEnsemble([TEMPERATURE], n_snapshots=10, seed=2511),
        CP2K(version="2023.1"),
        FiniteDisplacements(Instabilities(floor=1.0, min_frequency=1.0), DISTANCE),
        partial(ThreadPoolExecutor, 1),
        shipped_labels="antiperovskite_pbesol.jsonl",
    )


def main() -> None:
    logging.disable(logging.WARNING)
    potential, rows = SevenNet(), []
    with tempfile.TemporaryDirectory() as name:
        data = shipped(Path(name))
        made = data.generation
        data.prepare_data()
        planner = Planner(LabelStore(made.label_store, made.shipped_labels))
        crystals, models = prepare(made.recipe, planner, Path(name))
        labelled = list(read_rows(data.datapath))
    for crystal in crystals:
        reference = models[crystal.name, TEMPERATURE].force_constants
        found = compared(crystal, reference, potential, DISTANCE).summary
        own = [row for row in labelled if row.key_value_pairs["structure"] == crystal.name]
        predicted = [potential.label(row.atoms) for row in own]
        errors = {}
        for key, unit in (("forces", 1e-3), ("stress", GPa)):
            pairs = [(p[key], row.data[key]) for p, row in zip(predicted, own, strict=True)]
            differences = np.concatenate([np.ravel(p - label) for p, label in pairs])
            errors[key] = np.sqrt(np.mean(differences**2)) / unit
        labels = np.concatenate([np.ravel(row.data["forces"]) for row in own])
        errors["relative"] = 0.1 * errors["forces"] / np.sqrt(np.mean(labels**2))
        rows.append({"crystal": crystal.name, **found, **errors})
        print(rows[-1], flush=True)
    formats = dict.fromkeys([c for c in rows[0] if isinstance(rows[0][c], float)], ".2f")
    table = strings(pd.DataFrame(rows), formats)
    print("\n".join(markdown_table([*table], table.to_numpy().tolist())))


if __name__ == "__main__":
    main()
