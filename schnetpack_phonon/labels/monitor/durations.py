"""How long labels will take: from those of the same kind that were computed before."""

from __future__ import annotations

from collections import defaultdict
from statistics import mean

from schnetpack_phonon.common.digests import settings_hash
from schnetpack_phonon.common.progress import duration
from schnetpack_phonon.labels.store import Input, LabelStore, Record

_N_READ = 300  # records of a store, evenly distributed over it


class Durations:
    """Computing times of labels by their kind: task, code, settings and number of atoms."""

    def __init__(self) -> None:
        self._known: dict[tuple, list[float]] = defaultdict(list)

    def add(self, record: Record) -> None:
        """Counts a label that was computed now."""
        if record.input and record.seconds is not None:
            self._known[_kind(record.input)].append(record.seconds)

    def expected(self, first: Input | None, n: int, n_workers: int, store: LabelStore) -> str:
        """In words, how long labels will take; from the store where none was computed now.

        Args:
            first: input of one of them.
            n: their number.
            n_workers: that compute at the same time.
            store: with labels of earlier runs.
        """
        times, whose = self._known.get(_kind(first), []) if first else [], "as those before"
        if first and not times:
            times, whose = _stored(store, _kind(first)), "as such labels in the label store"
        if not times:
            return "how long it takes is known after the first"
        each = mean(times)
        text = f"{each:.2g} s" if each < 60 else duration(each)
        total = duration(each * max(n / n_workers, 1))
        return f"about {total} by {n_workers} at a time ({text} each, {whose})"


def _kind(given: Input) -> tuple:
    return given.task, given.code, len(given.atoms), settings_hash(given.settings)


def _stored(store: LabelStore, kind: tuple) -> list[float]:
    """Times of labels of a kind in a store, of a part of a large one."""
    keys = list(store)
    records = (store[key] for key in keys[:: len(keys) // _N_READ + 1])
    return [
        record.seconds
        for record in records
        if record.input and record.seconds is not None and _kind(record.input) == kind
    ]
