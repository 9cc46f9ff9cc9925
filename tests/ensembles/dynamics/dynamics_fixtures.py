"""A crystal of springs as a potential, and short dynamics of it."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.ensembles.dynamics.ensemble import MolecularDynamics


class Springs(Calculator):
    """Harmonic about given sites; fails after a number of calls if one is given."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, sites, matrix, calls):
        super().__init__()
        self.sites, self.matrix, self.calls = sites, matrix, calls

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls["n"] = self.calls.get("n", 0) + 1
        if self.calls["n"] > self.calls.get("limit", np.inf):
            raise CalculationFailed("no convergence")
        u = (self.atoms.positions - self.sites).ravel()
        forces = -self.matrix @ u
        self.results = {"energy": -u @ forces / 2, "forces": forces.reshape(-1, 3)}
        self.results["stress"] = np.zeros(6)


class SpringModel(AseCalculator):
    """As the calculator of labels; ``calls`` counts and limits them."""

    def __init__(self, ideal: Atoms, matrix: np.ndarray, strength: float = 1.0):
        self.calls: dict[str, float] = {}
        super().__init__(partial(Springs, ideal.positions, strength * matrix, self.calls))
        self.strength = strength

    @property
    def settings(self):
        return {"code": "springs", "strength": self.strength}


def md(calculator, folder, **options) -> MolecularDynamics:
    """One temperature, two replicas, an equilibration of 2 ps."""
    usual = {
        "temperatures": [300],
        "n_snapshots": 4,
        "seed": 3,
        "time_step": 4.0,
        "friction": 10.0,
        "equilibration": 2.0,
        "frames_per_parent": 2,
        "executor": partial(ThreadPoolExecutor, 1),
    }
    return MolecularDynamics(
        calculator=calculator, folder=str(folder), work_dir="/", **(usual | options)
    )
