"""Models from their weights against those of the pickle, and files that are no such models."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torchmetrics.regression import MeanAbsoluteError

from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.models.task import ScaledOutput, ScaledTask
from schnetpack_phonon.models.trained.weights import load_trained, read_weights, weights_file
from tests.models.model_fixtures import batch, thermal
from tests.models.trained.trained_fixtures import head, model_config

CONFIG = model_config(head("BandEdges"), head("Intensive", output_key="energy_per_atom"))
EVERYTHING = Trust(everything=True)


def task_of(config: dict, seed: int = 1) -> ScaledTask:
    """A task with what training changes: weights, offsets, elements."""
    torch.manual_seed(seed)
    model = instantiate(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    output = ScaledOutput("band_gap", torch.nn.MSELoss(), 1.0, {"mae": MeanAbsoluteError()})
    task = ScaledTask(model, [output], optimizer_args={"lr": 1e-3})
    model.trained_elements[[16, 35, 47]] = True
    for name, buffer in model.named_buffers():
        if name.endswith("offset"):
            buffer.normal_()
    return task.eval()


def save(task: ScaledTask, config: dict | None = CONFIG) -> Path:
    """The files that spktrain leaves in the working directory."""
    if config is not None:
        # With references, as Hydra's configurations have them.
        heads = [
            one | {"n_in": "${model.representation.n_atom_basis}"}
            for one in config["output_modules"]
        ]
        OmegaConf.save({"model": config | {"output_modules": heads}}, "config.yaml")
    task.save_model("best_model", do_postprocessing=True)
    return Path("best_model")


def outputs(model) -> dict[str, torch.Tensor]:
    dtype = next(model.parameters()).dtype
    return model(batch([thermal(k)[1] for k in range(3)], dtype))


@pytest.mark.parametrize("representation", ["PaiNN", "SchNet", "SO3net"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predictions_are_those_of_the_pickle_bit_by_bit(representation, dtype):
    config = model_config(*CONFIG["output_modules"], representation=representation)
    task = task_of(config).to(dtype)
    path = save(task, config)
    found, expected = load_trained(path), torch.load("best_model", weights_only=False).eval()
    assert found is not expected
    for name, value in outputs(expected).items():
        assert value.dtype == outputs(found)[name].dtype
        assert torch.equal(value, outputs(found)[name]), name
    assert found.state_dict().keys() == expected.state_dict().keys()
    assert found.trained_elements.nonzero()[:, 0].tolist() == [16, 35, 47]


@pytest.mark.parametrize("done", [True, False])
def test_postprocessors_and_their_offsets_are_kept(done):
    """Those of SchNetPack take their mean from the data, of another shape than the first one."""
    add = {"_target_": "schnetpack.transform.AddOffsets", "property": "energy_per_atom"}
    config = CONFIG | {"postprocessors": [add | {"add_mean": True, "is_extensive": False}]}
    task = task_of(config)
    task.model.postprocessors[0].mean = torch.tensor(-7.25)
    assert task.model.do_postprocessing
    path = save(task, config)
    found = load_trained(path)
    found.do_postprocessing = done
    shifted = outputs(found)["energy_per_atom"]
    found.do_postprocessing = False
    expected = outputs(found)["energy_per_atom"] + (-7.25 if done else 0.0)
    torch.testing.assert_close(shifted, expected)


def test_plain_attributes_that_training_changed_are_kept():
    task = task_of(CONFIG)
    task.model.output_modules[1].model_outputs = ["energy_per_atom"]
    task.model.representation.note = "frozen"
    task.model.do_postprocessing = False
    path = save(task)
    assert not task.model.do_postprocessing  # only the files have it switched on
    found = load_trained(path)
    assert found.do_postprocessing
    assert found.representation.note == "frozen"


def test_training_goes_on_with_the_same_random_numbers():
    task = task_of(CONFIG)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    load_trained(save(task))
    assert torch.equal(torch.rand(3), expected)


class Doubled(torch.nn.Module):
    """A head of the user."""

    def __init__(self, output_key: str):
        super().__init__()
        self.output_key, self.model_outputs = output_key, [output_key]

    def forward(self, inputs):
        inputs[self.output_key] = 2 * inputs["band_gap"]
        return inputs


def test_own_classes_are_allowed_by_their_package():
    own = {"_target_": f"{__name__}.Doubled", "output_key": "twice"}
    config = CONFIG | {"output_modules": [*CONFIG["output_modules"], own]}
    torch.manual_seed(0)
    model = instantiate(config)
    output = ScaledOutput("twice", torch.nn.MSELoss(), 1.0, {"mae": MeanAbsoluteError()})
    OmegaConf.save({"model": config}, "config.yaml")
    ScaledTask(model, [output], optimizer_args={"lr": 1e-3}).eval().save_model("best_model")
    with pytest.raises(ValueError, match=r"Doubled' is not among the classes .* --allow PACKAGE"):
        load_trained(Path("best_model"))
    for trust in (Trust(packages=("tests",)), EVERYTHING):
        found = outputs(load_trained(Path("best_model"), trust))
        assert torch.equal(found["twice"], 2 * found["band_gap"])


def other_width(task):
    return CONFIG | {"representation": CONFIG["representation"] | {"n_interactions": 3}}


def other_activation(task):
    task.model.output_modules[1].outnet[0].activation = torch.nn.functional.gelu
    return CONFIG


def hook(task):
    task.model.representation.register_forward_hook(lambda *_: None)
    return CONFIG


def of_another_kind(task):
    return {"_target_": "torch.nn.ReLU"}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (other_width, "describes a model of other modules"),
        (other_activation, "activation of output_modules.1.outnet.0 is not that of config.yaml"),
        (of_another_kind, "it describes a ReLU"),
    ],
)
def test_a_model_that_its_config_does_not_describe_gets_no_weights(config, reason, caplog):
    """Training goes on; the pickle is there; the weights of an earlier model are not."""
    earlier = task_of(CONFIG)
    save(earlier)
    task = task_of(CONFIG)
    OmegaConf.save({"model": config(task)}, "config.yaml")
    task.save_model("best_model")
    assert reason in caplog.text
    assert "need --trust" in caplog.text
    assert not weights_file(Path("best_model")).exists()
    with pytest.raises(ValueError, match=r"best_model is a pickle .* --trust"):
        load_trained(Path("best_model"))
    assert load_trained(Path("best_model"), EVERYTHING) is not None


def test_a_model_of_a_script_has_no_weights_and_no_warning(caplog):
    """It is no run, which its reports could open; the weights of an earlier model are not kept."""
    save(task_of(CONFIG))
    Path("config.yaml").unlink()
    save(task_of(CONFIG), config=None)
    assert not caplog.text
    assert not weights_file(Path("best_model")).exists()


class Evil:
    def __reduce__(self):
        return open, ("evil", "w")


def rewritten(**changes) -> Path:
    """The file of the weights with other entries in its description."""
    path = weights_file(save(task_of(CONFIG)))
    with np.load(path) as file:
        arrays = dict(file)
    found = json.loads(str(arrays["description"])) | changes
    np.savez(path, **arrays | {"description": np.array(json.dumps(found))})
    return path


def pickled_array() -> Path:
    path = weights_file(save(task_of(CONFIG)))
    with np.load(path) as file:
        arrays = dict(file)
    name = next(name for name in arrays if name.startswith("tensor:"))
    np.savez(path, **arrays | {name: np.array([Evil()], dtype=object)})
    return path


def pickle_in_its_place() -> Path:
    path = weights_file(save(task_of(CONFIG)))
    path.write_bytes(pickle.dumps(Evil()))
    return path


def other_pickle() -> Path:
    path = weights_file(save(task_of(CONFIG)))
    torch.save(task_of(CONFIG, seed=2).model, "best_model")
    return path


def cut() -> Path:
    path = weights_file(save(task_of(CONFIG)))
    path.write_bytes(path.read_bytes()[:1000])
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (pickled_array, "allow_pickle"),
        (pickle_in_its_place, "allow_pickle|pickled"),
        (cut, "not a zip file|cannot be opened"),
        (other_pickle, "best_model beside it is another model: remove one of the two"),
        (lambda: rewritten(format=9), "format 9; this version reads 1"),
        (lambda: rewritten(model={"_target_": "os.system", "command": "touch evil"}), "not among"),
        (lambda: rewritten(model={"_target_": "torch.nn.ReLU"}), "describes a ReLU"),
        (lambda: rewritten(attributes={"": {"forward": "x"}}), "it sets forward of Neural"),
        (lambda: rewritten(attributes={"": {"_modules": {}}}), "it sets _modules of Neural"),
        (lambda: rewritten(attributes={"": {"__class__": "x"}}), "it sets __class__ of Neural"),
        (lambda: rewritten(attributes={"nowhere": {"x": 1}}), "nowhere"),
        (lambda: rewritten(model=model_config(*CONFIG["output_modules"][:1] * 3)), "it has no out"),
    ],
)
def test_hostile_and_broken_files_are_refused(make, reason):
    path = make()
    for given in (path, Path("best_model")):
        with pytest.raises(ValueError, match=rf"the model in best_model.npz cannot .*{reason}"):
            load_trained(given)
    assert not Path("evil").exists()


def test_weights_need_no_pickle_beside_them(tmp_path):
    path = save(task_of(CONFIG))
    expected = outputs(torch.load("best_model", weights_only=False).eval())
    path.unlink()
    found = outputs(read_weights(tmp_path / "best_model.npz"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert load_trained(tmp_path) is not None
