"""Hoppings of a trained Hamiltonian by pair of elements, pair of orbitals and distance."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.neighborlist import neighbor_list
from schnetpack import properties as structure_keys

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.common.page import Picture, Section, Table, strings
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.evaluation.bands.figures import hopping_figure
from schnetpack_phonon.evaluation.runs import read_run
from schnetpack_phonon.models.hamiltonian.matrix import Hamiltonian
from schnetpack_phonon.models.hamiltonian.orbitals import SHELLS
from schnetpack_phonon.models.hamiltonian.two_centre import CHANNELS

_N_TRAINING = 64  # structures of the training set whose bonds are shown
_MARGIN = 0.2  # Ang; below the shortest bond, where hoppings are shown, too


def hopping_table(
    hamiltonian: Hamiltonian, first: str, second: str, distances: np.ndarray
) -> pd.DataFrame:
    """Hoppings between orbitals of two elements against the distance of the atoms.

    Args:
        hamiltonian: trained.
        first: symbol of an element.
        second: the same or another one.
        distances: in Ang, shape=(n,).

    Returns:
        A row a pair of orbitals and distance: ``pair`` (``Ag-S``), ``orbitals`` (``Ag d - S p σ``),
        ``distance`` in Ang; ``trained`` and ``start`` in eV, what was learned and what learning
        started from. Signs are those of Slater and Koster: orbitals of a p or d shell are positive
        in the direction from the first atom to the second.
    """
    start = copy.deepcopy(hamiltonian)
    start.reset_parameters()
    tables = []
    for a, b in dict.fromkeys([(first, second), (second, first)]):
        trained, initial = (_along(each, distances, a, b) for each in (hamiltonian, start))
        for k, orbitals in _channels(hamiltonian, a, b):
            if a != first and CHANNELS[k][0] == CHANNELS[k][1]:
                continue  # the same bond from the other side
            columns = {"distance": distances, "trained": trained[:, k], "start": initial[:, k]}
            names = {"pair": f"{first}-{second}", "orbitals": orbitals}
            tables.append(pd.DataFrame(names | columns))
    return pd.concat(tables, ignore_index=True)


def bond_distances(structures: Iterable[Atoms], cutoff: float) -> dict[str, np.ndarray]:
    """Distances of all bonds of some structures in Ang, each once or twice.

    Args:
        structures: periodic or not.
        cutoff: in Ang.

    Returns:
        Pair of elements, as in :func:`hopping_table` -> sorted distances.
    """
    found: dict[str, list[np.ndarray]] = {}
    for atoms in structures:
        i, j, distances = neighbor_list("ijd", atoms, cutoff)
        symbols = np.array(atoms.get_chemical_symbols())
        ends = np.sort(np.stack([symbols[i], symbols[j]]), axis=0)
        names = np.char.add(np.char.add(ends[0], "-"), ends[1])
        for name in np.unique(names):
            found.setdefault(str(name), []).append(distances[names == name])
    return {name: np.sort(np.concatenate(found[name])) for name in sorted(found)}


def environment_factors(hamiltonian: Hamiltonian, inputs: dict[str, torch.Tensor]) -> pd.DataFrame:
    """What the surroundings of a structure's atoms multiply its hoppings with.

    Args:
        hamiltonian: trained.
        inputs: of the structure, with the features of the representation.

    Returns:
        A row a pair of orbitals, ``orbitals`` as in :func:`hopping_table`: ``mean``, ``low`` and
        ``high`` over the bonds. None for a Hamiltonian of pair terms alone.
    """
    if hamiltonian.environment is None:
        return pd.DataFrame()
    with torch.no_grad():
        _, factor = hamiltonian.environment(inputs)
        near = torch.norm(inputs[structure_keys.Rij], dim=1) < hamiltonian.cutoff
    ends = [
        inputs[structure_keys.Z][inputs[key]]
        for key in (structure_keys.idx_i, structure_keys.idx_j)
    ]
    rows = []
    for a, b in sorted({*zip(*(each[near].tolist() for each in ends), strict=True)}):
        own = factor[near & (ends[0] == a) & (ends[1] == b)]
        for k, orbitals in _channels(hamiltonian, chemical_symbols[a], chemical_symbols[b]):
            values = own[:, k].tolist()
            found = {"mean": np.mean(values), "low": min(values), "high": max(values)}
            rows.append({"orbitals": orbitals, **found})
    return pd.DataFrame(rows)


def training_bonds(run: Path, trust: Trust, cutoff: float) -> tuple[dict[str, np.ndarray], str]:
    """Distances of bonds in some structures of the training set, and what these are.

    Args:
        run: folder of the run, or its ``best_model``.
        trust: what its files may do.
        cutoff: in Ang.

    Returns:
        As :func:`bond_distances`, and a sentence; nothing, with the reason, if there is no run.
    """
    try:
        found = read_run(run if run.is_dir() else run.parent, trust)
        n = len(found.train_idx)
        chosen = found.train_idx[np.linspace(0, n - 1, min(n, _N_TRAINING)).astype(int)]
        atoms = [row.atoms for row in read_rows(found.datapath, chosen)]
    except (RunError, OSError) as error:
        return {}, f"Bonds of the training set are not known: {error}."
    return bond_distances(atoms, cutoff), f"Grey: bonds in {len(atoms)} training structures."


def unknown_bonds(own: Mapping[str, np.ndarray], trained: Mapping[str, np.ndarray]) -> list[str]:
    """Warnings of bonds of a structure that are shorter than those of the training set."""
    found = []
    for pair, distances in own.items() if trained else ():
        if pair not in trained:
            found.append(f"Take care: no training structure has bonds {pair}.")
        elif distances[0] < trained[pair][0]:
            found.append(
                f"Take care: {pair} is as short as {distances[0]:.2f} Å; the shortest in training "
                f"structures is {trained[pair][0]:.2f} Å."
            )
    return found


def hopping_section(
    hamiltonian: Hamiltonian,
    own: Mapping[str, np.ndarray],
    trained: Mapping[str, np.ndarray],
    note: str,
    inputs: dict[str, torch.Tensor],
) -> Section:
    """Figure and table of the hoppings of a trained Hamiltonian.

    Args:
        hamiltonian: trained.
        own: distances of the bonds of a structure in Ang, by pair of elements.
        trained: the same of the training set; empty if it is not known.
        note: what these are.
        inputs: of the structure, with the features of the representation.
    """
    tables, nearest = [], []
    for pair, distances in own.items():
        first, second = pair.split("-")
        low = min(distances[0], *trained.get(pair, distances)[:1]) - _MARGIN
        grid = np.linspace(max(low, 0.1), hamiltonian.cutoff, 201)
        tables.append(hopping_table(hamiltonian, first, second, grid))
        nearest.append(hopping_table(hamiltonian, first, second, distances[:1]))
    if not tables:
        return Section("Hoppings", ["No two atoms are within the cutoff."])
    table, at_bond = pd.concat(tables), pd.concat(nearest)
    picture = Picture(
        "hoppings",
        "Hoppings against the distance of the atoms, trained (lines) and at the start (dotted), "
        f"with the bonds of this structure (ticks). {note}",
        hopping_figure(table, own, trained),
        table,
    )
    names = {"distance": "distance (Å)", "trained": "trained (eV)", "start": "start (eV)"}
    rows = strings(at_bond, {"distance": ".2f", "trained": ".3f", "start": ".3f"})
    caption = "Hoppings at the shortest bond of each pair of elements."
    factors = environment_factors(hamiltonian, inputs)
    if len(factors):
        at_bond = at_bond.merge(factors, "left", "orbitals")
        rows["factor"] = [
            f"{m:.2f} ({a:.2f} to {b:.2f})"
            for m, a, b in at_bond[["mean", "low", "high"]].to_numpy()
        ]
        caption += (
            " These are the terms of pairs of atoms; the surroundings multiply them with a factor, "
            "whose mean and range are those of the bonds of this structure."
        )
    shown = Table("hoppings_nearest", rows.rename(columns=names), at_bond, caption)
    return Section("Hoppings", [], [picture, shown])


def _along(hamiltonian: Hamiltonian, distances: np.ndarray, a: str, b: str) -> np.ndarray:
    with torch.no_grad():
        radii = torch.as_tensor(distances).to(hamiltonian.energies)
        return hamiltonian.hoppings_along(radii, a, b).double().cpu().numpy()


def _channels(hamiltonian: Hamiltonian, a: str, b: str) -> Iterator[tuple[int, str]]:
    """Number and name of each channel whose shells both elements have."""
    own = [hamiltonian.shells[hamiltonian.index[atomic_numbers[z]]].tolist() for z in (a, b)]
    for k, channel in enumerate(CHANNELS):
        if own[0][SHELLS.index(channel[0])] and own[1][SHELLS.index(channel[1])]:
            yield k, f"{a} {channel[0]} - {b} {channel[1]} {channel[2]}"
