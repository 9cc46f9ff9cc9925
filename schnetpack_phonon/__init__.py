"""Phonon-informed datasets, heads and bond attribution for SchNetPack."""

__version__ = "0.1.0"
