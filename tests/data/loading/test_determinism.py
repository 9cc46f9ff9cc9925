"""What is found repeatable, and what is told apart."""

import random
import sys

import numpy as np
import pytest
import torch
from schnetpack.data import ASEAtomsData
from schnetpack.transform import (
    ASENeighborList,
    CastTo32,
    CastTo64,
    CountNeighbors,
    MatScipyNeighborList,
    RemoveOffsets,
    ScaleProperty,
    SkinNeighborList,
    SubtractCenterOfGeometry,
    SubtractCenterOfMass,
    Transform,
    WrapPositions,
)
from torch import nn

from schnetpack_phonon.data.loading.determinism import (
    UnknownSettingsError,
    random_states,
    repeatable_prefix,
    same_items,
    settings_of,
)

ATOMS = {"_positions": torch.arange(6.0).reshape(2, 3)}


class Shift(Transform):
    """Adds what a function gives."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, inputs):
        inputs["_positions"] += self.draw()
        return inputs


class Counting(Transform):
    """Knows how often it was used."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def forward(self, inputs):
        self.n += 1
        return inputs


class Generating(Transform):
    """Random numbers of its own."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, inputs):
        return inputs


def always_two():
    return 2.0


def python_draws():
    return random.gauss(0, 1)


def numpy_draws():
    return np.random.normal()  # noqa: NPY002  # the global state is what is tested


def torch_draws():
    return torch.randn(())


def rare_coin():
    return float(random.random() < 1e-9)


def unseen_generator(rng=np.random.default_rng(0).normal):  # noqa: B008
    return rng()


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (Shift(python_draws), "draws random numbers"),
        (Shift(numpy_draws), "draws random numbers"),
        (Shift(torch_draws), "draws random numbers"),
        (Shift(rare_coin), "draws random numbers"),
        (Shift(lambda: np.random.default_rng().normal()), "another result each time"),
        (Shift(unseen_generator), "holds builtins.method"),
        (Counting(), "changes when it is used"),
        (Generating(np.random.default_rng(0)), "holds numpy.random"),
        (Generating(torch.Generator()), "holds torch"),
        (SkinNeighborList(MatScipyNeighborList(cutoff=3.0)), "changes when it is used"),
    ],
)
def test_what_is_random_or_remembers_is_found(transform, reason):
    item = {**ATOMS, "_idx": torch.tensor([0]), "_atomic_numbers": torch.tensor([47, 16])}
    item |= {"_cell": 9 * torch.eye(3)[None], "_pbc": torch.tensor([True] * 3)}
    item |= {"_n_atoms": torch.tensor([2])}
    transforms = [Shift(always_two), transform, Shift(always_two)]
    n, items, why = repeatable_prefix(transforms, [item])
    assert n == 1
    assert why.startswith(type(transform).__name__)
    assert reason in why
    assert getattr(transform, "n", 0) == 0
    torch.testing.assert_close(items[0]["_positions"], ATOMS["_positions"] + 2)
    torch.testing.assert_close(ATOMS["_positions"], torch.arange(6.0).reshape(2, 3))


def test_the_hosts_transforms_are_repeatable(built):
    data = ASEAtomsData(built.datapath)
    transforms = [
        SubtractCenterOfMass(),
        SubtractCenterOfGeometry(),
        WrapPositions(),
        MatScipyNeighborList(cutoff=4.0),
        ASENeighborList(cutoff=4.0),
        CountNeighbors(),
        RemoveOffsets("energy", remove_mean=True, property_mean=None),
        ScaleProperty("energy"),
        CastTo32(),
        CastTo64(),
    ]
    n, _, why = repeatable_prefix(transforms, [data[0], data[9]])
    assert (n, why) == (len(transforms), "")


def test_random_states_are_left_alone():
    def numbers():
        return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002

    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = numbers()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    repeatable_prefix([Shift(torch_draws)], [ATOMS])
    with random_states() as changed:
        assert not changed()
        numbers()
        assert changed()
    assert numbers() == expected


@pytest.mark.parametrize(
    "things",
    [
        [MatScipyNeighborList(cutoff=4.0), MatScipyNeighborList(cutoff=5.0)],
        [MatScipyNeighborList(cutoff=4.0), ASENeighborList(cutoff=4.0)],
        [CastTo32(), CastTo64()],
        [RemoveOffsets("a", remove_mean=True), RemoveOffsets("b", remove_mean=True)],
        [nn.Linear(2, 2), nn.Linear(2, 2)],
        [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32)],
        [1, 1.0, True, "1", b"1", None, [1], (1,), {1}, {1: 1}],
        [torch.float32, torch.float64, np.dtype("f4")],
        [always_two, python_draws, unseen_generator.__name__],
        [CastTo32, CastTo64, Shift],
    ],
)
def test_settings_tell_things_apart(things):
    assert len({settings_of(thing) for thing in things}) == len(things)


def test_values_of_buffers_count():
    one, other = (RemoveOffsets("energy", remove_mean=True) for _ in "ab")
    assert settings_of(one) == settings_of(other)
    other.mean = torch.ones(1)
    assert settings_of(one) != settings_of(other)


def test_code_of_a_transform_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = "from schnetpack.transform import Transform\nclass Mine(Transform):\n    pass\n"
    texts = []
    for text in (source, source.replace("pass", "a = 2"), source):
        (tmp_path / "mine.py").write_text(text)
        sys.modules.pop("mine", None)
        texts.append(settings_of(__import__("mine").Mine()))
    sys.modules.pop("mine")
    assert texts[0] == texts[2] != texts[1]


def some_settings() -> tuple[int, str]:
    """With a number that tells how this process orders sets."""
    things = [MatScipyNeighborList(cutoff=5.0), {"a", "b", "c"}, CastTo32()]
    return hash("a"), settings_of(things)


def test_another_process_finds_the_same(pool):
    (one, here), (other, there) = some_settings(), pool.submit(some_settings).result()
    assert one != other
    assert here == there


@pytest.mark.parametrize("thing", [object(), iter([]), np.array([None])])
def test_what_cannot_be_told_apart_is_refused(thing):
    with pytest.raises(UnknownSettingsError):
        settings_of(thing)


def test_items_are_compared_to_the_last_bit():
    one = {"x": torch.tensor([1.0, float("nan")])}
    assert same_items(one, {"x": one["x"].clone()})
    assert not same_items(one, {"x": one["x"].double()})
    assert not same_items(one, {"x": torch.nextafter(one["x"], torch.tensor(2.0))})
    assert not same_items(one, {"y": one["x"]})
