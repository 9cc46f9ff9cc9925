"""Several crystals from files, with their names and supercells."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from ase import Atoms

from schnetpack_phonon.structures.crystals import Crystal
from schnetpack_phonon.structures.files import checked_unitcell, formula, read_frames
from schnetpack_phonon.structures.supercells import supercell_of

log = logging.getLogger(__name__)

_NO_NAME = re.compile(
    r"(?i)(poscar|contcar|outcar|vasprun)?[._-]*"
)  # names of files that tell nothing


class StructureFiles:
    """Crystals from files of any format that :class:`.StructureFile` takes.

    A crystal has the name that is given; else that of its file (``MgO.cif``, ``POSCAR_MgO``);
    else, of a file ``POSCAR`` or with several structures, ``name=`` of an extxyz file or the
    formula. All structures of a file are taken.

    Args:
        paths: ``{NAME: FILE, ...}``; or a file, a list of files or a pattern: ``*.cif``, or
            ``{name}/POSCAR``, in which ``{name}`` stands for the name.
        supercell: ``auto`` (see :func:`.supercell_of`), three integers or a 3x3 matrix for all
            crystals; or ``{NAME: one of these, ...}``, for others ``auto``.
        min_length: of an automatic supercell: smallest distance of opposite faces, in Ang.
        min_atoms: of an automatic supercell.
        relax: relax cell and positions with the calculator, keeping the symmetry.
        format: ASE's name of the format of all files; told from each by default.
        symmetry_tolerance: in Ang, see :class:`.StructureFile`.
        calculator: of the relaxation; by default that of the labels.
        work_dir: where relative paths start.
    """

    def __init__(
        self,
        paths: Mapping[str, str] | Sequence[str] | str,
        supercell: Mapping[str, Any] | Sequence[Any] | str = "auto",
        min_length: float = 7.5,
        min_atoms: int = 2,
        relax: bool = True,
        format: str | None = None,
        symmetry_tolerance: float | None = None,
        calculator: Any = None,
        work_dir: str = ".",
    ):
        self.relax, self.calculator = relax, calculator
        found = [
            (name, path, checked_unitcell(atoms, path, symmetry_tolerance))
            for name, path, atoms in _named_structures(paths, format, Path(work_dir))
        ]
        _check_names([(name, path) for name, path, _ in found])
        own = (
            supercell if isinstance(supercell, Mapping) else {name: supercell for name, *_ in found}
        )
        if unknown := own.keys() - {name for name, *_ in found}:
            raise ValueError(
                f"data.structure.supercell names {', '.join(sorted(unknown))}; the crystals are "
                f"{', '.join(name for name, *_ in found)}"
            )
        self.crystals = []
        for name, path, atoms in found:
            matrix = supercell_of(atoms, own.get(name, "auto"), min_length, min_atoms)
            crystal = Crystal(name, atoms, matrix)
            cell = crystal.supercell
            log.info(
                "%s (%s): supercell %s of %d atoms, %s Ang",
                *(name, path, [list(row) for row in matrix], len(cell)),
                " x ".join(f"{length:.2f}" for length in cell.cell.lengths()),
            )
            self.crystals.append(crystal)


def _named_structures(
    paths: Mapping[str, str] | Sequence[str] | str, format: str | None, folder: Path
) -> Iterator[tuple[str, Path, Atoms]]:
    for given, path in _named_files(paths, folder):
        frames = list(read_frames(path, format=format, option="data.structure."))
        if not frames:
            raise ValueError(f"{path} has no structure")
        if len(frames) > 1 and given:
            raise ValueError(
                f"{path} of the crystal {given} has {len(frames)} structures; expected one. "
                f"data.structure.paths={path} takes all of them"
            )
        for atoms in frames:
            own = _NO_NAME.sub("", path.stem, count=1) if len(frames) == 1 else ""
            yield given or own or str(atoms.info.get("name") or formula(atoms)), path, atoms


def _named_files(
    paths: Mapping[str, str] | Sequence[str] | str, folder: Path
) -> Iterator[tuple[str | None, Path]]:
    """Files, and the names that are given for them."""
    if isinstance(paths, Mapping):
        yield from ((str(name), folder / path) for name, path in paths.items())
        return
    for pattern in [paths] if isinstance(paths, str) else paths:
        if "{name}" not in pattern and (not has_magic(pattern) or (folder / pattern).exists()):
            yield None, folder / pattern
            continue
        found = sorted(glob(pattern.replace("{name}", "*"), root_dir=folder))
        if not found:
            raise FileNotFoundError(
                f"no structure file at {folder.absolute() / pattern}: set data.structure.paths"
            )
        expression = re.escape(pattern).replace(r"\*", "[^/]*")
        expression = expression.replace(r"\{name\}", "(?P<name>[^/]+)", 1)
        named = re.compile(expression.replace(r"\{name\}", "(?P=name)"))
        for path in found:
            if "{name}" not in pattern:
                yield None, folder / path
            elif match := named.fullmatch(path):
                yield match["name"], folder / path


def _check_names(found: Sequence[tuple[str, Path]]) -> None:
    """Raises ValueError for no crystals, or two of one name."""
    if not found:
        raise ValueError("data.structure.paths is empty; expected {NAME: FILE, ...} or files")
    name, n = Counter(name for name, _ in found).most_common(1)[0]
    if n > 1:
        files = dict.fromkeys(str(path) for own, path in found if own == name)
        raise ValueError(
            f"{n} crystals are called {name} ({', '.join(files)}); expected different names: set "
            "data.structure.paths={NAME: FILE, ...}, or name=NAME in the comment lines of an "
            "extxyz file"
        )
