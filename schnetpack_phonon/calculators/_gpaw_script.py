"""Runs in the Python of GPAW: reads ``label.json`` and writes ``results.json`` beside it."""

import json
import os

import gpaw
from ase import Atoms
from ase.parallel import world
from gpaw import GPAW, PW, FermiDirac, KohnShamConvergenceError, Mixer
from gpaw.xc import XC


def main():
    with open("label.json") as file:
        job = json.load(file)
    results = {key: job[key] for key in ("numbers", "cell", "positions")}
    results["version"] = gpaw.__version__
    try:
        results.update(calculate(job), converged=True)
    except KohnShamConvergenceError:
        results["converged"] = False
    if world.rank == 0:
        with open("results.json.part", "w") as file:
            json.dump(results, file)
        os.replace("results.json.part", "results.json")


def calculate(job):
    functional = XC(job["functional"])
    functional.get_setup_name = lambda: job["datasets"]
    bands, empty = "CBM+0.5", {}
    if n_levels := job.get("n_levels"):
        bands, empty = -4, {"nbands": -4 - n_levels}  # the last four need not converge
    calculator = GPAW(
        xc=functional,
        mode=PW(job["cutoff"]),
        kpts={"size": job["kpoints"], "gamma": True},
        occupations=FermiDirac(job["width"]),
        mixer=Mixer(job["mixing"], 5, 50),
        convergence={"density": job["density"], "bands": bands},
        spinpol="magnetic_moments" in job,
        txt="-",
        **{**empty, **job["parameters"]},
    )
    atoms = Atoms(job["numbers"], job["positions"], cell=job["cell"], pbc=True)
    atoms.set_initial_magnetic_moments(job.get("magnetic_moments"))
    atoms.calc = calculator
    energy = atoms.get_potential_energy(force_consistent=True)
    weights = calculator.get_k_point_weights()
    points, spins = range(len(weights)), range(calculator.get_number_of_spins())
    energies = [[calculator.get_eigenvalues(k, s).tolist() for k in points] for s in spins]
    occupations = [  # 2 of a full level, of one spin, too
        [
            (len(spins) * calculator.get_occupation_numbers(k, s) / weights[k]).tolist()
            for k in points
        ]
        for s in spins
    ]
    return {
        "energy": energy,
        "forces": atoms.get_forces().tolist(),
        "stress": atoms.get_stress(voigt=False).tolist(),
        "n_electrons": float(calculator.get_number_of_electrons()),
        "n_spins": len(spins),
        "kpoints": calculator.get_ibz_k_points().tolist(),
        "weights": weights.tolist(),
        "energies": energies if len(spins) == 2 else energies[0],
        "occupations": occupations if len(spins) == 2 else occupations[0],
    }


if __name__ == "__main__":
    main()
