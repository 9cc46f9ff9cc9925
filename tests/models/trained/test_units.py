"""Units of models that were trained in any: ASE's EMT in kcal/mol and Bohr against itself in eV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.units import Bohr, Hartree, kcal, mol
from omegaconf import OmegaConf
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances, Strain
from schnetpack.data import ASEAtomsData, AtomsDataModule
from schnetpack.model import NeuralNetworkPotential
from schnetpack.task import ModelOutput
from schnetpack.transform import CastTo32, MatScipyNeighborList
from torch import nn

from schnetpack_phonon.attribution.report import Settings, in_the_unit_of
from schnetpack_phonon.common.errors import AttributionError, UnitError
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.models.heads import BandGap, Energy, Intensive
from schnetpack_phonon.models.predict import ModelCalculator, Predictor
from schnetpack_phonon.models.stress import StressTrace
from schnetpack_phonon.models.task import ScaledOutput, ScaledTask
from schnetpack_phonon.models.trained.units import units_of, units_of_data
from tests.models.model_fixtures import CUTOFF, batch, potential, quiet_trainer, thermal

CRYSTAL = thermal(1)[1]
KCAL = kcal / mol
TRUST = Trust(everything=True)  # SchNetPack's own task writes a pickle only


def foreign(*others: nn.Module) -> NeuralNetworkPotential:
    """Energy, forces and stress of SchNetPack, which tell no unit."""
    parts = potential(Atomwise(16, output_key="energy"), *others, dtype=torch.float64)
    mechanical = [Forces(calc_stress=True), StressTrace()]
    modules = [*parts.output_modules, *mechanical]
    return NeuralNetworkPotential(parts.representation, [Strain(), PairwiseDistances()], modules)


def database(path: Path, distance: str = "Ang") -> Path:
    units = {"U0": "kcal/mol", "forces": "kcal/mol/Ang"}
    dataset = ASEAtomsData.create(str(path), distance_unit=distance, property_unit_dict=units)
    crystals = [thermal(k)[1] for k in range(4)]
    rows = [{"U0": np.array([-k]), "forces": np.ones((len(a), 3))} for k, a in enumerate(crystals)]
    dataset.add_systems(rows, crystals)
    return path


def run_folder(place: Path, model: nn.Module, **data: object) -> Path:
    """As spktrain leaves it, with a database that only the process of the run could name."""
    folder = place / "runs" / "kcal"
    folder.mkdir(parents=True)
    torch.save(model, folder / "best_model")
    config = {
        "run": {"work_dir": "${hydra:runtime.cwd}", "data_dir": "${run.work_dir}/data"},
        "data": {"datapath": "${run.data_dir}/kcal.db", **data},
        "task": {"outputs": [{"name": "energy", "target_property": "U0"}]},
    }
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    return folder


def check_kcal(predictor: Predictor, model: NeuralNetworkPotential) -> None:
    (found,) = predictor([CRYSTAL])
    raw = model(batch([CRYSTAL], torch.float64))
    for key in ("energy", "forces", "stress", "hydrostatic_stress"):
        expected = raw[key] if key == "forces" else raw[key][0]
        np.testing.assert_allclose(found[key], KCAL * expected.detach(), rtol=1e-9)


@pytest.mark.parametrize("source", ["given", "run", "file", "record"])
def test_energies_forces_and_stress_are_converted(source, tmp_path):
    model = foreign()
    if source == "given":
        predictor = Predictor(model, units={"energy": "kcal/mol"})
    elif source == "record":
        model.training_units = {"energy": "kcal/mol", "distance": "Ang"}
        predictor = Predictor(model)
    else:
        (tmp_path / "data").mkdir()
        database(tmp_path / "data" / "kcal.db")
        folder = run_folder(tmp_path, model)
        predictor = Predictor(folder if source == "run" else folder / "best_model", trust=TRUST)
    check_kcal(predictor, model)
    atoms = CRYSTAL.copy()
    atoms.calc = ModelCalculator(predictor)
    raw = model(batch([CRYSTAL], torch.float64))
    assert atoms.get_potential_energy() == pytest.approx(KCAL * raw["energy"].item())


def test_units_of_a_data_module_replace_those_of_its_database(tmp_path):
    (tmp_path / "data").mkdir()
    database(tmp_path / "data" / "kcal.db")
    folder = run_folder(tmp_path, foreign(), property_units={"U0": "Hartree"})
    assert units_of(foreign(), folder)["energy"] == "Hartree"


def test_lengths_in_bohr():
    """A model that takes Bohr gives what it gives for the same numbers, in eV and Ang."""
    model = foreign()
    crystal = CRYSTAL.copy()
    crystal.set_cell(CRYSTAL.cell.array * Bohr, scale_atoms=True)
    (found,) = Predictor(model, units={"energy": "Hartree", "distance": "Bohr"})([crystal])
    raw = model(batch([CRYSTAL], torch.float64))
    assert found["energy"] == pytest.approx(Hartree * raw["energy"].item(), rel=1e-6)
    expected = Hartree / Bohr * raw["forces"].detach()
    np.testing.assert_allclose(found["forces"], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(AttributionError, match="lengths in Bohr"):
        in_the_unit_of(model, Settings("energy", unit="Hartree"), given={"distance": "Bohr"})


@pytest.mark.parametrize(
    ("model", "units", "message"),
    [
        (foreign, None, "unit of energy, forces, hydrostatic_stress, stress, and its training"),
        (foreign, {"energy": "kcals"}, "'kcals' is no unit"),
        (lambda: potential(BandGap(16, "band_gap")), {"band_gap": "kcal/mol"}, "trained in eV"),
        (lambda: potential(Energy(16)), {"energy": "Hartree"}, "'energy' is said to be in Har"),
    ],
)
def test_units_that_are_unknown_or_contradict_are_refused(model, units, message):
    with pytest.raises(UnitError, match=message):
        Predictor(model(), units=units)


def test_only_outputs_that_are_needed_must_be_known():
    model = foreign(BandGap(16, "band_gap"), Atomwise(16, output_key="charge"))
    assert units_of(model, outputs=["band_gap"])["band_gap"] == "eV"
    assert in_the_unit_of(model, Settings("band_gap")).unit == "eV"
    assert in_the_unit_of(model, Settings("energy", unit="kcal/mol")).unit == "kcal/mol"
    assert in_the_unit_of(model, Settings("charge")).unit == ""
    with pytest.raises(UnitError, match="--unit"):
        in_the_unit_of(model, Settings("energy"))


def module(path: Path, **kwargs) -> AtomsDataModule:
    data = AtomsDataModule(
        str(path),
        batch_size=2,
        num_workers=0,
        transforms=[MatScipyNeighborList(cutoff=CUTOFF), CastTo32()],
        **kwargs,
    )
    data.train_idx, data.val_idx, data.test_idx = [0, 1], [2], [3]
    data.setup()
    return data


def test_training_records_units_in_the_model(tmp_path):
    path = database(tmp_path / "kcal.db")
    net = potential(Atomwise(16, output_key="energy")).train()
    outputs = [ScaledOutput("energy", nn.MSELoss(), metrics={}, target_property="U0")]
    task = ScaledTask(net, outputs, optimizer_args={"lr": 1e-3})
    trainer = quiet_trainer(default_root_dir=tmp_path, enable_checkpointing=True)
    trainer.fit(task, datamodule=module(path))
    stored = ScaledTask.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    assert stored.model.training_units == {"energy": "kcal/mol", "distance": "Ang"}
    raw = stored.model.eval()(batch([CRYSTAL]))["energy"].item()
    assert Predictor(stored.model)([CRYSTAL])[0]["energy"] == pytest.approx(KCAL * raw, rel=1e-6)


def test_heads_train_in_our_units_alone(tmp_path):
    path, outputs = tmp_path / "energy.db", [ModelOutput("energy_per_atom", metrics={})]
    units = {"energy_per_atom": "kcal/mol"}
    dataset = ASEAtomsData.create(str(path), distance_unit="Bohr", property_unit_dict=units)
    rows = [{"energy_per_atom": np.array([1.0 * k])} for k in range(4)]
    dataset.add_systems(rows, [Atoms("Ag", cell=[5, 5, 5], pbc=True)] * 4)
    data = module(path)
    assert units_of_data(data, outputs) == {"energy_per_atom": "kcal/mol", "distance": "Bohr"}
    model = potential(Intensive(16, "energy_per_atom"))
    with pytest.raises(ValueError, match="positions come in Bohr; expected Ang: set distance_unit"):
        model.initialize_transforms(data)
    with pytest.raises(ValueError, match="'energy_per_atom' comes in 'kcal/mol'; expected 'eV'"):
        model.initialize_transforms(module(path, distance_unit="Ang"))
    data.dataset.distance_unit = "furlong"
    with pytest.raises(ValueError, match="positions come in furlong; expected Ang"):
        model.initialize_transforms(data)
    both = {"distance_unit": "Ang", "property_units": {"energy_per_atom": "eV"}}
    model.initialize_transforms(module(path, **both))
    offset = model.output_modules[0].offset[47].item()
    assert offset == pytest.approx(0.5 * KCAL)
