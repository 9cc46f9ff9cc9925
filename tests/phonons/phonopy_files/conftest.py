"""Crystals of springs and files of phonopy for them."""

import pytest


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "theirs"
    path.mkdir()
    return path
