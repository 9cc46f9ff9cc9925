"""A trained model of ours through the host's own doors: load_model and SpkCalculator.

Usage: python host_interfaces.py runs/NAME/best_model
"""

import sys

import numpy as np
import torch
from schnetpack.interfaces import AtomsConverter, SpkCalculator
from schnetpack.transform import MatScipyNeighborList
from schnetpack.utils import load_model

from schnetpack_phonon.structures.crystals import Antiperovskites

path = sys.argv[1]
crystal = Antiperovskites(["Ag3SBr"]).crystals[0].supercell
crystal.rattle(0.1, seed=1)
cutoff = MatScipyNeighborList(cutoff=6.0)

model = load_model(path)  # a pickle: load only what you trust
converter = AtomsConverter(neighbor_list=cutoff, dtype=torch.float32)
results = model(converter(crystal))
assert set(results) == {"band_gap", "vbm", "cbm", "energy_per_atom", "hydrostatic_stress"}, results
assert 0.0 <= results["band_gap"].item() < 5.0, results

calculator = SpkCalculator(
    path,
    cutoff,
    energy_key="energy_per_atom",
    force_key=None,
    energy_unit="eV",
    position_unit="Ang",
)
crystal.calc = calculator
per_atom = crystal.get_potential_energy()
np.testing.assert_allclose(per_atom, results["energy_per_atom"].item(), rtol=1e-5)
print(f"{path}: gap {results['band_gap'].item():.3f} eV, energy {per_atom:.3f} eV per atom")
