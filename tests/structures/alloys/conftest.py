"""What the tests of this folder share."""

import pytest

from schnetpack_phonon.structures import alloys
from tests.structures.alloys.alloys_fixtures import mixed


@pytest.fixture
def many(monkeypatch):
    """Arrangements by the thousand: in the cell of the first end member, which takes no time."""
    monkeypatch.setattr(alloys, "vegard", lambda crystal, relaxed: crystal)
    return mixed
