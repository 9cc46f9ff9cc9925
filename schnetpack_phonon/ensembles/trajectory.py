"""Snapshots from trajectories and other files, with labels if they have them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from ase import Atoms

from schnetpack_phonon.common.digests import contents_digest
from schnetpack_phonon.common.errors import check_at_least, check_choice
from schnetpack_phonon.ensembles.base import SimpleEnsemble, Snapshot
from schnetpack_phonon.labels.imported.checks import check_labels
from schnetpack_phonon.labels.imported.frames import FileLabels, Frame, same_source
from schnetpack_phonon.structures.crystals import Crystal
from schnetpack_phonon.structures.files import files_of_crystals, read_frames
from schnetpack_phonon.structures.matching import Match, match

log = logging.getLogger(__name__)


class FileEnsemble(SimpleEnsemble):
    """Snapshots from a molecular-dynamics trajectory or any file of structures.

    Atoms are found on the sites of the supercell of ``data.structure`` whatever their order, image
    and drift; a rotated cell is rotated back. Another cell is treated as a homogeneous strain.
    Masses and magnetic moments are those of the structure.

    Args:
        path: the file; ``{name}`` stands for the crystal's name if there are several.
        n_snapshots: number of frames to use; None for all.
        temperature: of the trajectory in K, for tables and figures.
        every: use each ``every``-th frame.
        skip: frames left out at the beginning.
        frames_per_parent: so many successive frames are similar and stay together when the data
            are split.
        format: ASE's name of the format, such as ``vasp-xml``; by default it is told from the name
            and the beginning of the file.
        labels: ``calculator`` computes them; ``file`` takes those of the file: energy, forces,
            stress, gap and band edges, whatever there is. Frames whose density did not converge are
            left out.
        prefix: of the names of labels in the file, such as ``REF_``.
        work_dir: folder in which a relative path starts.
    """

    kind = "file"

    def __init__(
        self,
        path: str,
        n_snapshots: int | None,
        temperature: float,
        every: int = 1,
        skip: int = 0,
        frames_per_parent: int = 10,
        format: str | None = None,
        labels: str = "calculator",
        prefix: str = "",
        work_dir: str = ".",
    ):
        check_at_least(1, n_snapshots=1 if n_snapshots is None else n_snapshots, every=every)
        check_at_least(1, frames_per_parent=frames_per_parent)
        check_at_least(0, skip=skip)
        check_choice(("calculator", "file"), **{"data.ensemble.labels": labels})
        self.path = str(Path(work_dir, path))
        self._n_snapshots = n_snapshots
        self.every = every
        self.skip = skip
        self.similar = frames_per_parent
        self.format = format
        self.labels = labels
        self.prefix = prefix
        self.parameters = [float(temperature)]
        self._sources: dict[Path, FileLabels] = {}
        self._said: set[tuple[Path, str]] = set()

    @property
    def settings(self) -> dict[str, Any]:
        own = {"labels": self.labels, "prefix": self.prefix} if self.labels == "file" else {}
        return {
            "kind": self.kind,
            "frames": contents_digest(self._files),
            "temperature": self.parameters[0],
            "n_snapshots": self._n_snapshots,
            "every": self.every,
            "skip": self.skip,
            "frames_per_parent": self.similar,
            **own,
        }

    @property
    def n_snapshots(self) -> int:
        """Of the longest file if all frames are used."""
        if self._n_snapshots is None:
            n_frames = max(sum(1 for _ in self._frames(path)) for path in self._files)
            return max(len(range(self.skip, n_frames, self.every)), 1)
        return self._n_snapshots

    @n_snapshots.setter
    def n_snapshots(self, value: int) -> None:  # by a mixture
        self._n_snapshots = value

    @property
    def source_of_labels(self) -> FileLabels | None:
        if self.labels == "calculator":
            return None
        return same_source([self._source(path) for path in self._files])

    def temperature(self, parameter: float) -> None:
        return None

    def snapshots(self, crystal: Crystal, source: Atoms, parameter: float) -> Iterator[Snapshot]:
        """The frames of the file."""
        path = Path(self.path.replace("{name}", crystal.name))
        if not path.is_file():
            raise _no_file(path)
        snapshot = self._maker(crystal, source, parameter)
        order, unusable = None, []
        frames = islice(self._frames(path), self.skip, None, self.every)
        for index, frame in enumerate(frames):
            where = f"frame {self.skip + index * self.every} of {path}"
            if frame.error:
                unusable.append(f"{where}: {frame.error}")
                continue
            found = match(source, frame.atoms, where, order)
            order = found.order
            for what in _remarks(found):
                self._say_once(path, what, f"{where} {what}")
            family = f"file/{index // self.similar}"
            one = snapshot(found.atoms, found.ideal, index, family)
            yield replace(one, labels=found.labels(frame.labels)) if self.labels == "file" else one
        if unusable:
            what = f"{len(unusable)} frames are left out: {unusable[0]}"
            self._say_once(path, what, what)

    def _say_once(self, path: Path, what: str, message: str) -> None:
        """Snapshots are drawn several times."""
        if (path, what) not in self._said:
            log.warning("%s", message)
            self._said.add((path, what))

    @property
    def _files(self) -> list[Path]:
        files = files_of_crystals(self.path)
        if not files:
            raise _no_file(Path(self.path))
        return files

    def _source(self, path: Path) -> FileLabels:
        if path not in self._sources:
            self._sources[path] = FileLabels(path, self.prefix, self.format)
            check_labels(self._sources[path].frames, path)
        return self._sources[path]

    def _frames(self, path: Path) -> Iterator[Frame]:
        if self.labels == "file":
            yield from self._source(path).frames
        else:
            for atoms in read_frames(path, format=self.format, option="data.ensemble."):
                yield Frame(atoms, {})


def _no_file(path: Path) -> ValueError:
    return ValueError(f"no trajectory at {path.absolute()}: set data.ensemble.path")


def _remarks(found: Match) -> set[str]:
    remarks = set()
    if found.reordered:
        remarks.add("has its atoms in another order than the supercell: found by their positions")
    if found.rotated:
        remarks.add("is rotated relative to the supercell: rotated back, forces and stress with it")
    return remarks
