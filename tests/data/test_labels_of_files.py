"""Databases from labelled trajectories: nothing is calculated; what is missing is NaN."""

from functools import partial

import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from schnetpack_phonon.data.database import read_metadata
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.data.statistics import label_spread
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.mixture import MixtureEnsemble
from schnetpack_phonon.ensembles.strained import StrainedEnsemble
from schnetpack_phonon.ensembles.trajectory import FileEnsemble
from schnetpack_phonon.labels.finite_strain import FiniteStrain
from schnetpack_phonon.models.task import ScaledOutput
from schnetpack_phonon.structures.crystals import Antiperovskites
from tests.data.data_fixtures import ALLOYS, ensemble_data

STRUCTURE = {"lattice_constants": ALLOYS, "supercell": [1, 1, 1]}


@pytest.fixture
def trajectory(tmp_path):
    """Twelve shuffled frames; every second has forces, every third a gap, one did not converge."""
    ideal = Antiperovskites(["Cu3PdAu"], **STRUCTURE).crystals[0].supercell
    rng = np.random.default_rng(0)
    frames = []
    for k in range(12):
        atoms = ideal[[4, 0, 2, 1, 3]]
        atoms.positions += rng.normal(0, 0.03, (5, 3))
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy()}
        results |= {"forces": atoms.get_forces()} if k % 2 == 0 else {}
        atoms.info |= {"band_gap": 1.0 + 0.1 * k} if k % 3 == 0 else {}
        atoms.info |= {"converged": False} if k == 5 else {}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    ase.io.write(tmp_path / "md.extxyz", frames)
    return tmp_path / "md.extxyz"


def data_of(folder, trajectory, **kwargs):
    never = partial(pytest.fail, "an executor is used")
    executor = type("Never", (), {"submit": never, "shutdown": lambda self, **_: None})
    ensemble = FileEnsemble(str(trajectory), None, 300.0, labels="file", frames_per_parent=1)
    structure = Antiperovskites(["Cu3PdAu"], **STRUCTURE)
    return ensemble_data(
        folder, **({"ensemble": ensemble, "structure": structure, "executor": executor} | kwargs)
    )


def test_rows_are_those_of_the_file(tmp_path, trajectory, caplog):
    caplog.set_level("INFO")
    data = data_of(tmp_path, trajectory)
    data.prepare_data()
    rows = list(read_rows(data.datapath))
    assert [row.key_value_pairs["snapshot"] for row in rows] == [*range(5), *range(6, 12)]
    for row in rows:
        k = row.key_value_pairs["snapshot"]
        atoms = row.atoms
        atoms.calc = EMT()
        assert row.data["energy"].item() == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        assert np.isnan(row.data["forces"]).all() == (k % 2 == 1)
        if k % 2 == 0:
            np.testing.assert_allclose(row.data["forces"], atoms.get_forces(), atol=1e-4)
        gap = 1.0 + 0.1 * k if k % 3 == 0 else np.nan
        np.testing.assert_allclose(row.data["band_gap"], [gap])
        assert row.key_value_pairs["code"] == "not told by the file"
    settings = read_metadata(data.datapath)["settings"]
    assert settings["calculator"] == {}
    assert settings["structure"]["relax"] is False
    assert caplog.text.count("1 frames are left out: frame 5 of") == 1
    assert "forces: NaN in 5 of 11 structures" in caplog.text
    assert data.generation.plan() == {}
    data_of(tmp_path, trajectory).prepare_data()  # the same settings


def test_other_labels_are_another_database(tmp_path, trajectory):
    data = data_of(tmp_path, trajectory)
    before = data.generation.recipe.settings
    frames = ase.io.read(trajectory, ":")
    frames[0].info["band_gap"] = 3.0
    ase.io.write(trajectory, frames)
    assert data_of(tmp_path, trajectory).generation.recipe.settings != before


def test_missing_labels_are_left_out_of_statistics_and_loss(tmp_path, trajectory):
    data = data_of(tmp_path, trajectory)
    data.prepare_data()
    data.setup()
    for key in ("band_gap", "forces"):
        assert 0 < label_spread(data, key) < np.inf
        output = ScaledOutput(name=key, loss_fn=torch.nn.MSELoss(), metrics={})
        output.datamodule(data)
        losses = []
        for batch in data.train_dataloader():
            target = batch[key]
            losses.append(output.calculate_loss({key: torch.zeros_like(target)}, {key: target}))
        assert torch.tensor(losses).isfinite().all()
        assert max(losses) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"elastic": FiniteStrain()}, "elastic tensors need a calculator, but labels come from"),
        (
            {
                "ensemble": lambda own: MixtureEnsemble(
                    {
                        "file": own,
                        "random": RandomEnsemble([0.1], "uniform", n_snapshots=1, seed=1),
                    },
                    {"file": 0.5, "random": 0.5},
                    4,
                )
            },
            "labels of some members of data.ensemble come from a file",
        ),
    ],
)
def test_what_labels_of_a_file_cannot_be_combined_with(tmp_path, trajectory, options, message):
    own = FileEnsemble(str(trajectory), None, 300.0, labels="file")
    options = {key: value(own) if callable(value) else value for key, value in options.items()}
    with pytest.raises(ValueError, match=message):
        data_of(tmp_path, trajectory, **options).prepare_data()


def test_files_of_several_temperatures(tmp_path, trajectory):
    """Whose labels are of one code."""
    one, two = (
        FileEnsemble(str(trajectory), None, t, labels="file", skip=skip)
        for t, skip in ((300.0, 0), (600.0, 3))
    )
    shares = {"one": 0.5, "two": 0.5}
    ensemble = MixtureEnsemble({"one": one, "two": two}, shares, n_snapshots=4)
    data = data_of(tmp_path, trajectory, ensemble=ensemble)
    data.prepare_data()
    temperatures = [row.key_value_pairs["temperature"] for row in read_rows(data.datapath)]
    assert temperatures == [300.0, 300.0, 600.0, 600.0]


def test_strained_frames_have_other_labels(trajectory):
    own = FileEnsemble(str(trajectory), None, 300.0, labels="file")
    with pytest.raises(ValueError, match=r"set data\.ensemble\.base\.labels=calculator"):
        StrainedEnsemble(own, 0.01, seed=1)
