"""The ideal crystal of a trajectory: its mean structure, made symmetric."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import spglib
from ase import Atoms
from ase.geometry import find_mic
from ase.spacegroup.symmetrize import refine_symmetry

from schnetpack_phonon.common.errors import check_at_least, check_positive
from schnetpack_phonon.structures.crystals import Crystal, shortest_distance
from schnetpack_phonon.structures.files import checked_unitcell, formula, read_frames
from schnetpack_phonon.structures.matching import too_far

log = logging.getLogger(__name__)

_FEWEST = 10  # frames, whose mean is worth something
_LARGEST_STRAIN = 0.05  # of the cell of a frame relative to the mean cell
_SMALLEST_TOLERANCE = 0.02  # Ang
_LARGEST_TOLERANCE = 0.3  # Ang; distortions of crystals are not much larger
_FACTORS = (4.0, 2.0, 1.0, 0.5, 0.1, 1e-3)  # of the tolerance, for spglib: distances of two atoms
_SAFE = 4.0
_N_PASSES = 2  # the first is relative to a displaced frame


class MeanStructure:
    """The crystal of which the frames of a file are displaced copies.

    Cell and fractional coordinates are averaged over the frames, whatever images and drift are, and
    made as symmetric as is possible without moving an atom by more than a tolerance.

    Args:
        path: of the file, with at least 10 frames of the same atoms in the same order.
        skip: frames left out at the beginning, as those before equilibrium.
        symmetry_tolerance: in Ang; by default the largest distance between the mean positions of
            the first and of the second half of the frames, at least 0.02 Ang.
        name: in tables and names of files; the chemical formula by default.
        relax: relax cell and positions with the calculator, keeping the symmetry.
        format: ASE's name of the format; by default it is told from the name and the beginning of
            the file.
        calculator: of the relaxation; by default that of the labels.
        work_dir: where a relative path starts.

    Raises:
        ValueError: for frames of different atoms or cells, atoms that diffuse, or halves with
            different means.
    """

    def __init__(
        self,
        path: str | None,
        skip: int = 0,
        symmetry_tolerance: float | None = None,
        name: str | None = None,
        relax: bool = False,
        format: str | None = None,
        calculator: Any = None,
        work_dir: str = ".",
    ):
        if path is None:
            raise ValueError(
                "data.structure.path is not set; expected the file of frames, such as that of "
                "data/ensemble=labelled"
            )
        check_at_least(0, skip=skip)
        self.relax, self.calculator = relax, calculator
        file = Path(work_dir, path)
        frames = list(
            islice(read_frames(file, format=format, option="data.structure."), skip, None)
        )
        mean, uncertainty = mean_structure(frames, file, skip)
        log.info("ideal crystal: mean of %d frames of %s", len(frames), file)
        unitcell = _symmetric(mean, uncertainty, symmetry_tolerance, file)
        name = name or formula(unitcell)
        self.crystals = [Crystal(name, checked_unitcell(unitcell, path, None), _ONE)]


_ONE = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


def mean_structure(frames: Sequence[Atoms], path: Path, skip: int = 0) -> tuple[Atoms, float]:
    """Mean cell and mean positions of the atoms, in the order of the frames.

    Args:
        frames: of one crystal.
        path: of their file, for messages.
        skip: frames of the file before the first.

    Returns:
        The structure, and the largest distance between the means of both halves, in Ang.

    Raises:
        ValueError: see :class:`MeanStructure`.
    """
    if len(frames) < _FEWEST:
        raise ValueError(
            f"{path} has {len(frames)} frames after the first {skip}; expected at least {_FEWEST} "
            "for a mean: give the ideal crystal, data/structure=file data.structure.path=POSCAR"
        )
    first = frames[0]
    cell = np.mean([frame.cell.array for frame in frames], axis=0)
    if not abs(np.linalg.det(cell)) > 0:
        raise ValueError(f"{path} has no cell: give the ideal crystal, data/structure=file")
    for index, frame in enumerate(frames, skip):
        if not np.array_equal(frame.numbers, first.numbers):
            raise ValueError(
                f"frame {index} of {path} is {frame.get_chemical_formula()}, or in another order "
                f"than frame {skip}, {first.get_chemical_formula()}; expected the same atoms"
            )
        strain = np.abs(np.linalg.solve(cell, frame.cell.array) - np.eye(3)).max()
        if strain > _LARGEST_STRAIN:
            raise ValueError(
                f"the cell of frame {index} of {path} differs by {strain:.2f} from the mean cell; "
                f"expected at most {_LARGEST_STRAIN:g}: give the ideal crystal, data/structure=file"
            )
    fractions = np.array([frame.get_scaled_positions(wrap=False) for frame in frames])
    mean = Atoms(first.numbers, scaled_positions=fractions[0], cell=cell, pbc=True)
    for _ in range(_N_PASSES):
        u = _displacements(fractions, mean.get_scaled_positions(wrap=False)) @ cell
        mean.positions += u.mean(axis=0)
        u = u - u.mean(axis=0)
    lengths = np.linalg.norm(u, axis=2)
    if (far := too_far(mean, lengths.max(axis=0))).any():
        atom = int(far.argmax())
        index = int(lengths[:, atom].argmax())
        raise ValueError(
            f"atom {atom} ({mean.symbols[atom]}) of frame {skip + index} of {path} is "
            f"{lengths[index, atom]:.2f} Ang from its mean position, too far for a neighbouring "
            "one: atoms diffuse, or the crystal changes; leave out frames (data.structure.skip), "
            "or give the ideal crystal, data/structure=file"
        )
    half = len(u) // 2
    difference = u[:half].mean(axis=0) - u[half:].mean(axis=0)
    return mean, float(np.linalg.norm(difference, axis=1).max())


def _displacements(fractions: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Fractional displacements to the nearest image, without the drift of each frame.

    Args:
        fractions: shape=(n_frames, n_atoms, 3).
        mean: shape=(n_atoms, 3).
    """
    steps = fractions - mean
    drift = np.angle(np.exp(2j * np.pi * steps).mean(axis=1, keepdims=True)) / (2 * np.pi)
    u = steps - drift
    u -= u.round()
    return u - u.mean(axis=1, keepdims=True)


def _symmetric(mean: Atoms, uncertainty: float, tolerance: float | None, path: Path) -> Atoms:
    """The symmetric structure; the log says what was done."""
    if tolerance is None:
        if uncertainty > _LARGEST_TOLERANCE:
            raise ValueError(
                f"mean positions of the first and second half of {path} differ by "
                f"{uncertainty:.2f} Ang; expected at most {_LARGEST_TOLERANCE:g}: the crystal "
                "changes (data.structure.skip leaves out the beginning), or the frames are too few"
            )
        tolerance = max(uncertainty, _SMALLEST_TOLERANCE)
    check_positive("Ang", **{"data.structure.symmetry_tolerance": tolerance})
    limit = shortest_distance(mean) / _SAFE  # beyond, spglib fails or crashes
    for factor in _FACTORS:  # the highest symmetry that moves no atom further
        atoms, symprec = mean.copy(), min(factor * tolerance, limit)
        cell = (mean.cell.array, mean.get_scaled_positions(), mean.numbers)
        if not spglib.get_symmetry_dataset(cell, symprec=symprec):
            continue
        refine_symmetry(atoms, symprec=symprec)
        left, _, right = np.linalg.svd(np.linalg.solve(atoms.cell.array, mean.cell.array))
        atoms.set_cell(atoms.cell.array @ left @ right, scale_atoms=True)  # oriented as before
        shifts = find_mic(atoms.positions - mean.positions, mean.cell)[0]
        shift = np.linalg.norm(shifts - shifts.mean(axis=0), axis=1).max()
        if shift <= tolerance:
            break
    group: Any = spglib.get_symmetry_dataset(
        (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    )
    log.info(
        "ideal crystal: symmetrised to %s (%d), largest shift %.3f of at most %.3f Ang",
        *(group.international, group.number, shift, tolerance),
    )
    return atoms
