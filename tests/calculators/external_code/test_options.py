"""Options of all programs reach their inputs."""

import inspect
import json
import pickle
import tempfile
from dataclasses import fields
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from schnetpack_phonon._hydra import config_folder
from tests.calculators.code_fixtures import CODES

# ---- options


def written(calculator, atoms, tmp_path) -> list[str]:
    """Lines of all text files that are written, blanks made one."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        calculator.write_input(Path(folder), atoms, 0.4)
        texts = [path.read_text() for path in sorted(Path(folder).iterdir())]
    return [" ".join(line.split()) for text in texts for line in text.splitlines()]


@pytest.mark.parametrize(
    ("name", "option", "value", "line"),
    [(name, *option) for name, code in CODES.items() for option in code.options],
)
def test_every_option_reaches_the_input_and_the_settings(name, option, value, line, tmp_path):
    code = CODES[name]
    default, changed = code.make(), code.make(**{option: value})
    assert line in written(changed, code.atoms, tmp_path)
    assert line not in written(default, code.atoms, tmp_path)
    different = {k for k in default.settings if default.settings[k] != changed.settings[k]}
    assert different == {option}
    assert changed.settings[option] == value


def test_how_a_label_is_computed_does_not_identify_it(code):
    same = code.make(mixing=[0.1], command="another", time_limit=60)
    assert same.settings == code.make().settings


def test_config_names_every_option_with_its_default(code):
    calculator = type(code.make())
    config = OmegaConf.load(Path(config_folder()) / "data" / "calculator" / f"{code.config}.yaml")
    values = OmegaConf.to_container(config)
    assert get_class(values.pop("_target_")) is calculator
    options = inspect.signature(calculator).parameters.values()
    expected = {o.name: "???" if o.default is o.empty else o.default for o in options}
    if "work_dir" in expected:
        expected["work_dir"] = "${run.work_dir}"
    assert values == {k: list(v) if isinstance(v, tuple) else v for k, v in expected.items()}


def test_options_through_hydra(code):
    """Settings are plain values, also where options are lists and mappings."""
    calculator = type(code.make())
    target = {"_target_": f"{calculator.__module__}.{calculator.__name__}", **code.make.keywords}
    for option, value, _ in code.options:
        made = instantiate(OmegaConf.create({**target, option: value}))
        assert json.dumps(made.settings) == json.dumps(code.make(**{option: value}).settings)


SHARED = [
    ({"kpoints": [2, 2]}, r"kpoints is \[2, 2\]; expected three integers >= 1"),
    ({"kpoints": [2, 0, 2]}, "expected three integers >= 1"),
    ({"mixing": []}, r"mixing is \[\]; expected parameters between 0 and 1"),
    ({"mixing": [1.5]}, r"expected parameters between 0 and 1"),
]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [(name, *refused) for name, code in CODES.items() for refused in SHARED + code.refused],
)
def test_options_that_cannot_be(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        CODES[name].make(**arguments)


def test_numbers_must_be_positive(code):
    numbers = [field.name for field in fields(code.make()) if field.type == "float"]
    assert {"electronic_temperature", "time_limit"} < set(numbers)
    for name in numbers:
        with pytest.raises(ValueError, match=f"^{name} is 0; expected > 0"):
            code.make(**{name: 0})


def test_travels_to_workers(code, fake, tmp_path):
    calculator = code.make(kpoints=[1, 2, 3], mixing=[0.3], command=fake(code=code))
    assert calculator.code_version.endswith(code.version)
    there = pickle.loads(pickle.dumps(calculator))
    assert vars(there) == vars(calculator)
    assert there.settings == calculator.settings
    assert written(there, code.atoms, tmp_path) == written(calculator, code.atoms, tmp_path)
