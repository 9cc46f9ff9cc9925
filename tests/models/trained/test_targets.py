"""What a file may name, and what it may not."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.models.trained.targets import build
from schnetpack_phonon.structures.crystals import Antiperovskites
from tests.models.trained.trained_fixtures import head, model_config

LOADS = {"_target_": "torch.load", "f": "evil.pt", "weights_only": False}


@pytest.mark.parametrize(
    "hostile",
    [
        LOADS,
        {"_target_": "os.system", "command": "touch evil"},
        {"_target_": "builtins.eval", "_args_": ["open('evil', 'w')"]},
        {"_target_": "pandas.read_pickle", "filepath_or_buffer": "evil.pt"},
        {"_target_": "schnetpack.utils.load_model", "model_path": "evil.pt"},
        {"_target_": "schnetpack.model.base.torch.load", "f": "evil.pt"},
        {"_target_": "schnetpack_phonon.evaluation.runs.os.system", "_args_": ["touch evil"]},
        {"_target_": "schnetpack_phonon.calculators.external_code.subprocess.run", "args": ["x"]},
        {"_target_": "schnetpack_phonon.calculators.external_code.subprocess.Popen", "args": "x"},
        {"_target_": "schnetpack.md.calculators.SchNetPackCalculator", "model_file": "evil.pt"},
        {
            "_target_": "schnetpack.transform.CachedNeighborList",
            "cache_path": ".",
            "neighbor_list": None,
        },
        {"_target_": "torch.nn.functional.handle_torch_function", "_args_": []},
        {"_target_": "hydra.utils.get_method", "path": "os.system"},
        {"_target_": "hydra.utils.get_object", "path": "os.system"},
        {"_target_": "hydra.utils.instantiate", "config": LOADS},
        {"_target_": "ase.calculators.emt.EMT"},  # an object, not a factory
        {"_target_": "os.system", "_partial_": True},
        {"_target_": "antigravity.fly"},
        {"_target_": "system"},
        {"_target_": ["os.system"]},
        {"_target_": "${oc.env:HOME}"},
    ],
    ids=lambda one: str(one["_target_"]),
)
def test_nothing_else_is_called_wherever_it_stands(hostile, tmp_path):
    for config in (
        hostile,
        model_config(hostile),
        model_config(head("BandGap", output_key=hostile)),
        {"_target_": "torch.nn.Linear", "_args_": [1, {"deep": [hostile]}]},
    ):
        with pytest.raises(ValueError, match=r"is not among the classes|is not there"):
            build(config)
    assert not list(tmp_path.iterdir())


def test_modules_are_not_imported_to_be_refused(tmp_path, monkeypatch):
    (tmp_path / "beside_the_run.py").write_text("open('evil', 'w').close()\nclass Head: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"'beside_the_run.Head' is not among the classes"):
        build({"_target_": "beside_the_run.Head"})
    assert not Path("evil").exists()
    made = build({"_target_": "beside_the_run.Head"}, Trust(packages=("beside_the_run",)))
    assert type(made).__name__ == "Head"
    assert build({"_target_": "pathlib.PurePath"}, Trust(everything=True)).name == ""


@pytest.mark.parametrize("representation", ["PaiNN", "SchNet", "SO3net"])
def test_models_are_those_of_hydra(representation):
    config = model_config(
        head("BandEdges"),
        head("Intensive", output_key="energy_per_atom", activation={"_target_": "torch.nn.Tanh"}),
        representation=representation,
    )
    torch.manual_seed(0)
    expected = instantiate(config).state_dict()
    torch.manual_seed(0)
    found = build(config).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"_target_": "torch.nn.functional.silu", "_partial_": True}, torch.nn.functional.silu),
        (
            {"_target_": "hydra.utils.get_method", "path": "torch.nn.functional.softplus"},
            torch.nn.functional.softplus,
        ),
        (
            {"_target_": "schnetpack.nn.activations.shifted_softplus", "_partial_": True},
            lambda x: torch.log((1 + torch.exp(x)) / 2),
        ),
    ],
    ids=["partial", "get_method", "schnetpack"],
)
def test_activations_may_be_functions(config, expected):
    x = torch.linspace(-2, 2, 5)
    torch.testing.assert_close(build(config)(x), expected(x))


def test_structures_and_calculators_of_a_run():
    made = build({"_target_": "schnetpack_phonon.structures.Antiperovskites", "names": ["Ag3SI"]})
    assert isinstance(made, Antiperovskites)
    factory = {"_target_": "ase.calculators.emt.EMT", "_partial_": True}
    made = build({"_target_": "schnetpack_phonon.calculators.AseCalculator", "factory": factory})
    assert isinstance(made, AseCalculator)
    assert made.settings["code"] == "ase.calculators.emt.EMT"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": "torch.nn.Linear", "width": 3}, "torch.nn.Linear cannot be made: .*width"),
        ({"_target_": "torch.nn.Nothing"}, "'torch.nn.Nothing' is not there"),
        ({"_target_": "torch.nn.ReLU", "_recursive_": False}, "_recursive_: false"),
    ],
)
def test_what_cannot_be_made_says_why(config, message):
    with pytest.raises(ValueError, match=message):
        build(config)
