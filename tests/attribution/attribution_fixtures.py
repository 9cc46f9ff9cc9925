"""Attribution of one structure, and pair terms between all species of a crystal."""

from ase import Atoms

from schnetpack_phonon.attribution.bond_attribution import attribute
from schnetpack_phonon.data.reading import Structure

AG, S, BR = 47, 16, 35
STRENGTHS = {(AG, S): 3.0, (AG, BR): -2.0, (AG, AG): 1.0, (S, BR): 0.5, (S, S): 4, (BR, BR): -1}


def one(model, ideal: Atoms | None, displaced: Atoms, output: str = "y", **kwargs):
    return attribute(model, [Structure(ideal, displaced)], output, **kwargs)[0]
