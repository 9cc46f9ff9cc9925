"""Elastic tensors of a run of 6_elastic.sh: on its test structures, and of the ideal crystal.

python elastic.py runs/elastic
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.calculators.emt import EMT
from ase.db import connect
from ase.io import read
from ase.units import GPa

from schnetpack_phonon.models import ElasticResponse, Predictor, with_elastic_response
from schnetpack_phonon.structures import (
    finite_strain_tensor,
    finite_strains,
    hill_average,
    point_group,
    strained,
    symmetrized,
    universal_anisotropy,
)

DIRECT, RESPONSE = "elastic_tensor", "second_derivatives"
NAMES = {DIRECT: "ElasticTensor", RESPONSE: "ElasticResponse"}
STEP = 0.005


def emt_tensor(atoms):
    """Clamped-ion tensor in GPa, as the labels."""
    copies = [strained(atoms, strain) for strain in finite_strains(STEP).reshape(-1, 3, 3)]
    for copy in copies:
        copy.calc = EMT()
    stresses = np.reshape([copy.get_stress(voigt=False) for copy in copies], (6, 2, 3, 3))
    return finite_strain_tensor(stresses / GPa, STEP)


def young_modulus(tensor, angles):
    """In GPa along directions of the plane (001)."""
    n = np.stack([np.cos(angles), np.sin(angles), 0 * angles])
    stress = np.array([n[0] ** 2, n[1] ** 2, n[2] ** 2, n[1] * n[2], n[0] * n[2], n[0] * n[1]])
    strain = np.linalg.solve(tensor, stress)
    return 1 / (stress * strain).sum(axis=0)


run = Path(sys.argv[1])
model = Predictor(run).model.double()
model = with_elastic_response(model, ElasticResponse(clamped_key=RESPONSE))
predictor = Predictor(model)

rows = [*connect("data/Cu3Au_strained_elastic.db").select()]
test = [rows[k] for k in np.load(run / "split.npz")["test_idx"]]
labels = np.concatenate([row.data[DIRECT] for row in test])
found = predictor([row.toatoms() for row in test])

crystal = read("POSCAR")
symmetry = point_group(crystal)
ideal = {key: symmetrized(predictor([crystal])[0][key], symmetry) for key in NAMES}
ideal = {"EMT": emt_tensor(crystal)} | {NAMES[key]: tensor for key, tensor in ideal.items()}

formula = crystal.get_chemical_formula()
print(f"\n{formula:15s}  C11  C12  C44  bulk  shear  Young (GPa)  anisotropy")
for name, tensor in ideal.items():
    mean = hill_average(tensor)
    constants = "".join(f"{tensor[k]:5.0f}" for k in ((0, 0), (0, 1), (3, 3)))
    moduli = f"{mean.bulk:6.0f} {mean.shear:6.0f} {mean.young:12.0f}"
    print(f"{name:15s}{constants}{moduli} {universal_anisotropy(tensor):11.2f}")

figure = plt.figure(figsize=(10, 4.5), layout="constrained")
parity = figure.add_subplot(121)
upper = np.triu_indices(6)
for key, marker in ((DIRECT, "o"), (RESPONSE, "x")):
    values = np.array([each[key] for each in found])
    error = np.linalg.norm(values - labels, axis=(1, 2)) / np.linalg.norm(labels, axis=(1, 2))
    print(f"{NAMES[key]}: {error.mean():.1%} mean relative error of {len(test)} test structures")
    name = f"{NAMES[key]}: {error.mean():.1%}"
    parity.plot(labels[:, *upper].ravel(), values[:, *upper].ravel(), marker, ms=4, label=name)
parity.axline((0, 0), slope=1, color="0.6", lw=1)
parity.set(xlabel="$C_{ab}$ of EMT (GPa)", ylabel="$C_{ab}$ of the model (GPa)")
parity.set_title("strained thermal test structures, mean relative error")
parity.legend()

polar = figure.add_subplot(122, projection="polar")
angles = np.linspace(0, 2 * np.pi, 181)
for (name, tensor), style in zip(ideal.items(), ("-", "--", ":"), strict=True):
    polar.plot(angles, young_modulus(tensor, angles), style, label=name)
polar.set_title("ideal crystal: Young's modulus in the plane (001), GPa", pad=16)
polar.set_rmin(0)
polar.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3)
figure.savefig("elastic.png", dpi=120)
