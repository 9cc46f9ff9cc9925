"""Phonon-informed datasets, heads and bond attribution for SchNetPack."""

from schnetpack_phonon import _moved

__version__ = "0.1.0"

_moved.install()
