"""A page about the bands of a structure and the hoppings that they follow from."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from ase import Atoms
from ase.spectrum.band_structure import BandStructure
from ase.spectrum.dosdata import GridDOSData

from schnetpack_phonon.common.files import UNTRUSTED, Trust, replacing
from schnetpack_phonon.common.page import Picture, Section, Table, strings, write_page
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.evaluation.bands.figures import band_figure
from schnetpack_phonon.evaluation.bands.hoppings import (
    bond_distances,
    hopping_section,
    training_bonds,
    unknown_bonds,
)
from schnetpack_phonon.models.hamiltonian.bands import Levels, hamiltonian_of, recorded
from schnetpack_phonon.models.predict import Predictor
from schnetpack_phonon.structures.files import formula, read_structure

_NEAR = 1e-3  # eV; edges at a point of the path rather than of the mesh, if they are this close


class _Edge(NamedTuple):
    """Energy in eV and the wave vector, a special point where it is one."""

    energy: float
    place: str


def band_report(
    run: Path,
    structure: Path,
    folder: Path,
    frame: int | None = None,
    format: str | None = None,
    path: str | None = None,
    window: tuple[float, float] = (-5.0, 5.0),
    trust: Trust = UNTRUSTED,
) -> str:
    """Bands, density of states and hoppings of one structure, and a page about them.

    Args:
        run: folder of a run, or its ``best_model``, with a learned Hamiltonian.
        structure: ASE database or any file that ASE reads; its labels are shown, too.
        folder: of the page.
        frame: which structure of several; 0 is the first.
        format: ASE's name of the format of the file.
        path: see :meth:`.Levels.bands`.
        window: energies in the figure in eV, relative to the valence band maximum or, of a metal,
            to the Fermi level.
        trust: what the files of the run may do.

    Returns:
        The main results, in a few lines.

    Raises:
        ValueError: for a model without a Hamiltonian, a structure that cannot be read or has
            elements that the model does not know, an unknown path, an empty window.
    """
    if not window[0] < window[1]:
        raise ValueError(f"the window is {window[0]:g} to {window[1]:g} eV; expected low < high")
    predictor = Predictor(run, trust=trust)
    head = hamiltonian_of(predictor.model)
    keys = {"gap": head.band_gap_key, "VBM": head.vbm_key, "CBM": head.cbm_key}
    atoms, name, labels = _read(structure, frame, format, keys)
    levels = predictor.levels(atoms)
    bands, dos = levels.bands(path), levels.density_of_states()
    with recorded(head) as found:
        (values,) = predictor([atoms])
    predicted = {key: float(values[each]) for key, each in keys.items()}
    own = bond_distances([atoms], head.hamiltonian.cutoff)
    trained, note = training_bonds(run, trust, head.hamiltonian.cutoff)
    edges = _edges(levels, bands)
    claims = [
        *_claims(name, levels, edges, predicted, labels, head.kpoint_length),
        *unknown_bonds(own, trained),
    ]
    sections = [
        Section("What came out", claims, claim=True),
        _levels(name, levels, bands, dos, edges, predicted, labels, window),
        hopping_section(head.hamiltonian, own, trained, note, found["inputs"]),
        Section("How", [*_HOW, f"Model: {run.resolve()}", f"Structure: {structure.resolve()}"]),
    ]
    places = write_page(folder, f"Bands of {name}", sections)
    table = pd.DataFrame({"energy": dos.get_energies(), "states_per_eV": dos.get_weights()})
    with replacing(folder / "data" / "density_of_states.csv") as part:
        table.to_csv(part, index=False)
    with replacing(folder / "data" / "bands.json") as part:
        bands.write(part)
    return "\n".join([*claims, f"page: {places['page'].resolve()}"])


_HOW = (
    "Energies are relative to the zero of potential of the labels that the model was trained on. "
    "Numbers are in data/: bands.csv, bands.json (for ASE: ase band-structure bands.json), "
    "density_of_states.csv, hoppings.csv.",
    "Labels next to the gap train the Hamiltonian. Bands far from it follow from free atoms and "
    "universal hoppings, and the errors of the run say nothing about them.",
)


def _read(
    path: Path, frame: int | None, format: str | None, keys: Mapping[str, str]
) -> tuple[Atoms, str, dict[str, float]]:
    """A structure, its name, and those labels of it that it has."""
    if path.suffix == ".db":
        rows = [*islice(read_rows(path, None if frame is None else [frame]), 2)]
        if len(rows) != 1:
            raise ValueError(
                f"{path} has {'several structures' if rows else 'no structure'}; expected one: "
                "set --frame, 0 for the first"
            )
        atoms, data, pairs = rows[0]
        name = str(pairs.get("structure", formula(atoms)))
    else:
        atoms = read_structure(path, format, frame, "--")
        data, name = atoms.info, formula(atoms)
    found = {key: float(np.ravel(data[each])[0]) for key, each in keys.items() if each in data}
    return atoms, name, {key: value for key, value in found.items() if np.isfinite(value)}


def _edges(levels: Levels, bands: BandStructure) -> dict[str, _Edge]:
    """Highest level with electrons and lowest with room for some, along the path and on the mesh.

    An odd number of electrons half fills a level, which is both.
    """
    kpoints, _, on_mesh = levels.mesh
    n, points = levels.n_electrons, bands.path.kpts
    found = {}
    for name, band, sign in (("VBM", (n + 1) // 2 - 1, 1), ("CBM", n // 2, -1)):
        own, others = sign * bands.energies[0][:, band], sign * on_mesh[:, band]
        at = points[own.argmax()]
        if others.max() > own.max() + _NEAR:
            at = kpoints[others.argmax()]
        energy = sign * max(own.max(), others.max())
        found[name] = _Edge(float(energy), _place(at, bands.path.special_points))
    return found


def _place(kpoint: np.ndarray, special: Mapping[str, np.ndarray]) -> str:
    for name, point in special.items():
        shift = kpoint - point
        if np.abs(shift - shift.round()).max() < 1e-6:
            return name.replace("G", "Γ")
    return "(" + ", ".join(f"{x:.3g}" for x in kpoint) + ")"


def _claims(
    name: str,
    levels: Levels,
    edges: Mapping[str, _Edge],
    predicted: Mapping[str, float],
    labels: Mapping[str, float],
    length: float,
) -> list[str]:
    n, orbitals = levels.n_electrons, levels.mesh[2].shape[1]
    claims = [
        f"{name}, {len(levels.atoms)} atoms: {n} valence electrons fill {n / 2:g} of {orbitals} "
        "levels."
    ]
    (top, here), (bottom, there) = edges["VBM"], edges["CBM"]
    if top >= bottom:
        claims.append(
            f"No gap: filled and empty bands overlap by {top - bottom:.3f} eV; Fermi level "
            f"{levels.fermi_level:.3f} eV."
        )
    elif here == there:
        claims.append(f"Direct gap of {bottom - top:.3f} eV at {here}.")
    else:
        claims.append(f"Indirect gap of {bottom - top:.3f} eV, from {here} to {there}.")
    where = f"on a mesh of {length:g} Å" if length else "at Γ alone"
    label = f"; the label is {labels['gap']:.3f} eV" if "gap" in labels else ""
    claims.append(f"Gap that the model predicts, {where}: {predicted['gap']:.3f} eV{label}.")
    return claims


def _levels(
    name: str,
    levels: Levels,
    bands: BandStructure,
    dos: GridDOSData,
    edges: Mapping[str, _Edge],
    predicted: Mapping[str, float],
    labels: Mapping[str, float],
    window: tuple[float, float],
) -> Section:
    gap = edges["CBM"].energy - edges["VBM"].energy
    zero = ("VBM", edges["VBM"].energy) if gap > 0 else ("Fermi level", levels.fermi_level)
    lines = {key: value for key, value in labels.items() if key != "gap"}
    caption = "Bands and density of states of both spins, filled up to the Fermi level (dotted). "
    caption += f"Zero is {zero[0]}, {zero[1]:.3f} eV."
    picture = Picture(
        "bands", caption, band_figure(bands, dos, zero, window, lines, name), _band_table(bands)
    )
    found = {"gap": _Edge(max(gap, 0.0), "")} | dict(edges)
    data = pd.DataFrame(
        [
            {
                "quantity": key,
                "energy": each.energy,
                "at": each.place,
                "output": predicted[key],
                "label": labels.get(key),
            }
            for key, each in found.items()
        ]
    )
    names = {
        "quantity": "",
        "energy": "along path and on mesh (eV)",
        "at": "at",
        "output": "output of the model (eV)",
        "label": "label (eV)",
    }
    rows = strings(
        data.astype({"label": float}), dict.fromkeys(("energy", "output", "label"), ".3f")
    )
    n = len(levels.mesh[0])
    table = Table(
        "edges",
        rows.rename(columns=names),
        data,
        f"Band edges. The mesh, also of the density of states, has {n} wave vectors, without those "
        "that are alike by time reversal; the output of the model is at those of its training.",
    )
    return Section("Levels", [], [picture, table])


def _band_table(bands: BandStructure) -> pd.DataFrame:
    """A row a wave vector: distance along the path in 1/Ang, place, levels in eV."""
    x, ticks, names = bands.path.get_linear_kpoint_axis()
    special = [
        next((n for t, n in zip(ticks, names, strict=True) if abs(t - each) < 1e-9), "")
        for each in x
    ]
    columns = {"distance": x, "point": special}
    columns |= {f"k{axis}": bands.path.kpts[:, axis - 1] for axis in (1, 2, 3)}
    energies = bands.energies[0]
    levels = {f"level_{k + 1}": energies[:, k] for k in range(energies.shape[1])}
    return pd.DataFrame(columns | levels)
