"""What the tests of this folder share."""

import pytest

from tests.labels.offline_fixtures import (
    CODE,
    export_from,
    make_generation,
)


@pytest.fixture
def generation(tmp_path):
    return make_generation(tmp_path)


@pytest.fixture
def root(tmp_path, generation):
    """The ideal crystal and two snapshots, exported."""
    export_from(generation, tmp_path / "out", CODE)
    return tmp_path / "out"
