"""Thermal averages against the same snapshots, one by one."""

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from matscipy.neighbours import neighbour_list
from schnetpack.atomistic import Forces
from torch import nn

from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.data.reading import read_labels, read_provenance
from schnetpack_phonon.ensembles.fixed import ModeEnsemble, SpecialEnsemble
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.mixture import MixtureEnsemble
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.runs import read_run
from schnetpack_phonon.evaluation.thermal import averages
from schnetpack_phonon.evaluation.thermal.averages import thermal_properties
from schnetpack_phonon.evaluation.thermal.vibrations import vibrations
from schnetpack_phonon.models.heads import BandGap, Energy, Intensive
from schnetpack_phonon.models.predict import Predictor
from tests.evaluation.comparison.comparison_fixtures import ENERGY
from tests.evaluation.thermal.thermal_fixtures import thermal_run

N, SEED, HOT = 12, 5, 4000.0
TRUST = Trust(everything=True)  # for heads that are in the pickle only
FEW = {"n_snapshots": 2, "seed": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two models of one kind."""
    folder = tmp_path_factory.mktemp("thermal")
    heads = {seed: [BandGap(16, "band_gap"), Intensive(16, ENERGY)] for seed in (1, 2)}
    return [read_run(thermal_run(folder, seed, heads[seed])) for seed in (1, 2)]


@pytest.fixture(scope="module")
def found(runs):
    return thermal_properties(runs, [0, 300], N, SEED)


@pytest.fixture(scope="module")
def crystal_and_model(runs):
    crystals, models = vibrations(runs[0], PhononEnsemble([300.0], n_snapshots=1, seed=1))
    return crystals[0], models["Cu3PdAu", 300.0]


def predicted(runs, atoms, key="band_gap"):
    """Shape=(n_models, n_structures)."""
    return np.array([[row[key] for row in Predictor(run.model)(atoms)] for run in runs])


def snapshots(crystal, model, temperature, statistics, n=N):
    ensemble = PhononEnsemble([temperature], statistics, n_snapshots=n, seed=SEED)
    stream = ensemble.snapshots(crystal, model, temperature)
    return [next(stream).atoms for _ in range(n)]


def label_at_rest(crystal_and_model):
    """In eV per atom."""
    atoms = crystal_and_model[0].supercell.copy()
    atoms.calc = EMT()
    return atoms.get_potential_energy() / len(atoms)


def row(found, **values):
    table = found.averages
    for column, value in values.items():
        table = table[table[column] == value]
    return table.iloc[0]


@pytest.mark.parametrize("statistics", ["quantum", "classical"])
@pytest.mark.parametrize("key", ["band_gap", ENERGY])
def test_average_over_the_ensemble(found, runs, crystal_and_model, statistics, key):
    values = predicted(runs, snapshots(*crystal_and_model, 300.0, statistics), key)
    rest = predicted(runs, [crystal_and_model[0].supercell], key)[:, 0]
    if key == ENERGY:  # EMT has no gap
        rest = label_at_rest(crystal_and_model)
    place = {"property": key, "temperature": 300, "statistics": statistics}
    average = row(found, **place, estimate="ensemble")
    assert average["value"] == pytest.approx(values.mean(), rel=1e-5)
    assert average["error"] == pytest.approx(values.mean(axis=0).std(ddof=1) / np.sqrt(N), rel=1e-3)
    assert average["seed_sd"] == pytest.approx(values.mean(axis=1).std(ddof=1), rel=1e-4)
    change = values.mean(axis=1) - rest
    assert average["change"] == pytest.approx(change.mean(), abs=1e-5)
    assert average["change_sd"] == pytest.approx(change.std(ddof=1), abs=1e-5)
    assert average["at_rest"] == ("labelled" if key == ENERGY else "predicted")
    assert average["n"] == N


@pytest.mark.parametrize("key", ["band_gap", ENERGY])
def test_quantum_and_classical_are_compared_pair_by_pair(found, runs, crystal_and_model, key):
    quantum, classical = (
        predicted(runs, snapshots(*crystal_and_model, 300.0, statistics), key)
        for statistics in ("quantum", "classical")
    )
    pairs = (quantum - classical).mean(axis=0)
    table = found.differences.set_index(["property", "temperature"])
    difference = table.loc[key, 300.0]
    assert difference["value"] == pytest.approx(pairs.mean(), abs=2e-6)
    error = pairs.std(ddof=1) / np.sqrt(N)
    assert difference["error"] == pytest.approx(error, rel=0.02)
    assert difference["n"] == N
    place = {"property": key, "temperature": 300, "estimate": "ensemble"}
    two = [row(found, **place, statistics=s)["error"] for s in ("quantum", "classical")]
    assert difference["error"] < 0.5 * np.hypot(*two)
    assert set(found.differences["temperature"]) == {300.0}


class Isotropic(nn.Module):
    """An elastic tensor of bulk modulus 2 s and shear modulus s.

    With s = (sum of squared edge lengths) / (number of atoms), in GPa.
    """

    output_key = "elastic_tensor"

    def __init__(self):
        super().__init__()
        self.model_outputs = [self.output_key]
        bulk, shear = torch.zeros(6, 6), torch.diag(torch.tensor([2.0, 2, 2, 1, 1, 1]))
        bulk[:3, :3] = 1
        shear[:3, :3] -= 2 / 3
        self.register_buffer("tensor", 2 * bulk + shear)

    def forward(self, inputs):
        squares = inputs["_Rij"].square().sum(dim=1)
        batch = inputs["_idx_m"]
        n = len(inputs["_n_atoms"])
        sums = torch.zeros(n).index_add(0, batch[inputs["_idx_i"]], squares)
        return inputs | {self.output_key: (sums / inputs["_n_atoms"])[:, None, None] * self.tensor}


def test_moduli_against_temperature(tmp_path):
    """Closed form: Hill's average of isotropic tensors is linear, and so is their mean."""
    heads = [Intensive(16, ENERGY), Isotropic()]
    folder = thermal_run(tmp_path, 1, heads)
    model = torch.load(folder / "best_model", weights_only=False)
    model.training_units = {"elastic_tensor": "GPa"}  # as a task would, of a head that is not ours
    torch.save(model, folder / "best_model")
    run = read_run(folder, TRUST)
    found = thermal_properties([run], [100, 300], 40, SEED)
    crystals, models = vibrations(run, PhononEnsemble([100.0, 300.0], n_snapshots=1, seed=1))
    for temperature in (100.0, 300.0):
        model = models["Cu3PdAu", temperature]
        atoms = snapshots(crystals[0], model, temperature, "quantum", 40)
        s = [(neighbour_list("d", a, 5.0) ** 2).sum() / len(a) for a in atoms]
        for factor, name in ((2, "bulk modulus"), (1, "shear modulus")):
            place = {"property": name, "temperature": temperature, "statistics": "quantum"}
            modulus = row(found, **place)
            assert modulus["value"] == pytest.approx(factor * np.mean(s), rel=1e-5)
            error = factor * np.std(s) / np.sqrt(40)
            assert modulus["error"] == pytest.approx(error, rel=0.2)  # 200 bootstrap samples
            assert np.isnan(modulus["seed_sd"])
            assert modulus["n"] == 40


def test_special_displacement_and_crystal_at_rest(found, runs, crystal_and_model):
    crystal, model = crystal_and_model
    pair = [s.atoms for s in SpecialEnsemble([300.0]).snapshots(crystal, model, 300.0)]
    place = {"property": "band_gap", "temperature": 300, "statistics": "quantum"}
    special = row(found, **place, estimate="special")
    assert special["value"] == pytest.approx(predicted(runs, pair).mean(), rel=1e-5)
    rest = predicted(runs, [crystal.supercell]).mean()
    static = found.static.set_index(["property", "at_rest"])["value"]
    assert static["band_gap", "predicted"] == pytest.approx(rest, rel=1e-5)
    label = label_at_rest(crystal_and_model)
    assert static[ENERGY, "labelled"] == pytest.approx(label, abs=1e-6)
    assert ("band_gap", "labelled") not in static


def test_atoms_move_at_zero_only_as_quantum_oscillators(found):
    cold = found.averages[found.averages["temperature"] == 0]
    assert set(cold["statistics"]) == {"quantum"}


def test_labels_of_the_database(found, runs, crystal_and_model):
    """Of the database, by temperature; changes from the label at rest."""
    rows = read_provenance(runs[0].datapath).join(read_labels(runs[0].datapath))
    own = rows.loc[rows["temperature"] == 300, ENERGY]
    labels = row(found, property=ENERGY, temperature=300, estimate="labels")
    assert labels["value"] == pytest.approx(own.mean())
    assert labels["error"] == pytest.approx(own.std() / np.sqrt(8))
    change = own.mean() - label_at_rest(crystal_and_model)
    assert labels["change"] == pytest.approx(change, abs=1e-6)


def test_single_modes(found, runs, crystal_and_model):
    """One frequency with all its modes, against the mean over their plus and minus."""
    crystal, model = crystal_and_model
    assert found.modes["n"].sum() == 117
    (first,) = found.modes.head(1).to_dict("records")
    modes = list(range(int(first["mode"]), int(first["mode"] + first["n"])))
    ensemble = ModeEnsemble([-1, 1], 300.0, modes)
    atoms = [s.atoms for q in (-1.0, 1.0) for s in ensemble.snapshots(crystal, model, q)]
    rest = predicted(runs, [crystal.supercell]).mean()
    expected = predicted(runs, atoms).mean() - rest
    assert first["shift"] == pytest.approx(expected, abs=1e-5)


def test_structures_far_from_training_give_a_warning(runs):
    hot = thermal_properties(runs[:1], [300, HOT], 4, SEED)
    (warning,) = (w for w in hot.warnings if f"{HOT:g} K, quantum" in w)
    assert "times as far from the training structures" in warning
    assert not any("300 K" in w for w in hot.warnings)
    distances = hot.averages.dropna(subset="distance").groupby("temperature")["distance"].mean()
    assert distances[HOT] > 2 > distances[300]


def test_labels_of_tensors_have_no_average(tmp_path):
    forces = Forces()
    forces.output_key = "forces"
    run = read_run(thermal_run(tmp_path, 1, [Energy(16), forces]), TRUST)
    table = thermal_properties([run], [300], 2, SEED).averages
    assert set(table.loc[table["estimate"] == "labels", "property"]) == {ENERGY, "energy"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (PhononEnsemble([300], "classical", **FEW).settings, {"classical"}),
        (RandomEnsemble([0.1], **FEW).settings, set()),
        (
            MixtureEnsemble(
                {"a": PhononEnsemble([300], "classical", **FEW), "b": RandomEnsemble([0.1], **FEW)},
                {"a": 0.5, "b": 0.5},
                n_snapshots=4,
            ).settings,
            {"classical"},
        ),
    ],
)
def test_labels_have_the_statistics_of_their_ensemble(runs, monkeypatch, settings, expected):
    """Rows of a mixture say ``phonon`` for either kind of oscillators."""
    metadata = {"settings": {"ensemble": settings}}
    monkeypatch.setattr(averages, "read_metadata", lambda _: metadata)
    table = thermal_properties(runs[:1], [300], 2, SEED).averages
    labels = table[table["estimate"] == "labels"]
    assert set(labels["statistics"]) == expected
    assert set(table["at_rest"].dropna()) == {"predicted"}  # as in databases of version 0.1
