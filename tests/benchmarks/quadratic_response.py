"""What second-order perturbation theory makes of gaps: linear in quadratic forms of displacements.

Symmetry leaves 45 of them in the antiperovskites' cell of 40 atoms, those of harmonic force
constants (symfc). A ridge regression on them, with coefficients that crystals share and deviations
of each crystal, is what the heads are compared with: no features are learned.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.db import connect
from phonopy.structure.atoms import PhonopyAtoms
from symfc import Symfc

from schnetpack_phonon.common import properties

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def errors(
    path: Path, keys: Sequence[str], train: list[int], val: list[int], test: list[int]
) -> dict[str, float]:
    """Test MAE of each property; the penalty is that of the lowest error in validation."""
    rows = [*connect(path).select()]
    crystal = np.array([row.formula for row in rows])
    forms = _forms(rows)
    deviation, spread = forms - forms[train].mean(axis=0), forms[train].std(axis=0)
    columns = [deviation / spread]
    columns += [0.7 * columns[0] * (crystal == name)[:, None] for name in np.unique(crystal)]
    design = np.concatenate(columns, axis=1)
    design -= _means(design, crystal, train)
    found = {}
    for key in keys:
        labels = np.array([np.ravel(row.data[key])[0] for row in rows])
        rest = labels - _means(labels, crystal, train)
        scores = []
        for penalty in PENALTIES:
            square = design[train].T @ design[train] + penalty * np.eye(design.shape[1])
            error = rest - design @ np.linalg.solve(square, design[train].T @ rest[train])
            scores.append([np.abs(error[part]).mean() for part in (val, test)])
        found[key] = min(scores)[1]
    return found


def _means(values: np.ndarray, crystal: np.ndarray, train: list[int]) -> np.ndarray:
    """Of the training set, for each structure that of its crystal."""
    result = np.empty_like(values)
    for name in np.unique(crystal):
        result[crystal == name] = values[train][crystal[train] == name].mean(axis=0)
    return result


def _forms(rows: list) -> np.ndarray:
    """All quadratic forms of the displacements that symmetry leaves, shape=(n_rows, n_forms)."""
    ideal = [np.reshape(row.data[properties.ideal_positions], (-1, 3)) for row in rows]
    first = rows[0]
    cell = np.reshape(first.data[properties.ideal_cell], (3, 3))
    symfc = Symfc(PhonopyAtoms(numbers=first.numbers, positions=ideal[0], cell=cell))
    symfc.compute_basis_set(2)
    basis = symfc.basis_set[2]
    n = len(first.numbers)
    tensors = (basis.compression_matrix @ basis.basis_set).reshape(n, n, 3, 3, -1)
    matrices = tensors.transpose(4, 0, 2, 1, 3).reshape(-1, 3 * n, 3 * n)
    displacements = [row.positions - at for row, at in zip(rows, ideal, strict=True)]
    u = np.array([each - each.mean(axis=0) for each in displacements]).reshape(len(rows), -1)
    return np.einsum("kab,na,nb->nk", matrices, u, u, optimize=True)
