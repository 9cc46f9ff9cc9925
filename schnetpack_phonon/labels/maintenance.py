"""What one does with label stores beside labelling: look into them, merge and prune."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.common.page import markdown_table
from schnetpack_phonon.common.properties import Labels
from schnetpack_phonon.labels.store import LabelStore, Record, existing_store

_N_REASONS = 20


# Labels that differ by less, in eV and Ang or relative to their size, are the same: other machines
# round differently.
_TOLERANCE = 1e-6


def summary(path: str | Path) -> str:
    """Tables of what a store holds and of what failed.

    Raises:
        LabellingError: if there is no store or a line of it is damaged.
    """
    store = existing_store(path)
    settings: dict[str, str] = {}
    groups: dict[tuple[str, str, str], Counter] = defaultdict(Counter)
    hours: dict[tuple[str, str, str], float] = defaultdict(float)
    reasons: dict[str, list[str]] = defaultdict(list)
    for record in _records(store):
        group = ("not recorded", "", "")
        if record.input:
            text = ", ".join(f"{key} {value}" for key, value in record.input.settings.items())
            name = settings.setdefault(text, str(1 + len(settings)))
            group = (record.input.code, name, record.input.task)
        groups[group]["failed" if record.error else "finished"] += 1
        if record.seconds is not None:
            groups[group]["timed"] += 1
            hours[group] += record.seconds / 3600
        if record.error:
            reasons[record.error].append(record.input.description if record.input else record.key)
    n_failed = sum(counts["failed"] for counts in groups.values())
    lines = [
        f"{store.path}: {len(store) - n_failed} finished labels, {n_failed} failed calculations, "
        f"{store.path.stat().st_size / 1e6:.1f} MB",
        "",
        *markdown_table(
            ["code", "settings", "task", "finished", "failed", "hours of workers"],
            [
                [*group, str(n["finished"]), str(n["failed"]), _hours(hours[group], n)]
                for group, n in groups.items()
            ],
        ),
    ]
    lines += [f"settings {name}: {text}" for text, name in settings.items()]
    if reasons:
        most = sorted(reasons.items(), key=lambda item: -len(item[1]))[:_N_REASONS]
        cells = [[reason, str(len(where)), where[0]] for reason, where in most]
        lines += ["", *markdown_table(["reason", "times", "for example"], cells)]
        if len(reasons) > len(most):
            lines.append(f"and {len(reasons) - len(most)} more reasons")
    return "\n".join(lines)


def merge(into: str | Path, sources: Sequence[str | Path]) -> str:
    """Adds all records of other stores to one; a finished label wins over a failed one.

    Raises:
        LabellingError: if two stores have different labels of one key; nothing is written then.
    """
    store = LabelStore(into)
    stores = [store, *map(existing_store, sources)]
    before = len(store)

    def lines() -> Iterator[bytes]:
        holders: dict[str, list[LabelStore]] = defaultdict(list)
        for one in stores:
            for key in one:
                holders[key].append(one)
        for key, found in holders.items():
            holders[key] = [one for one in found if not one.failed(key)] or found[:1]
        conflicts = [c for key, found in holders.items() for c in _conflicts(key, found)]
        if conflicts:
            raise LabellingError(
                f"labels of {len(conflicts)} keys differ, nothing was merged:\n  "
                + "\n  ".join(conflicts[:_N_REASONS])
                + "\nDelete the lines that are wrong (or that you trust less)"
            )
        for key, found in holders.items():
            yield _most_telling(key, found).line(key)

    store.rewrite(lines)
    after = LabelStore(into)
    return f"{after.path}: {len(after)} records, {len(after) - before} of them new"


def prune(path: str | Path, code: str | None = None, finished: bool = False) -> str:
    """Drops failed records, so that they are tried again.

    Args:
        path: the store.
        code: drop only records of this code and version.
        finished: drop its finished labels too.

    Raises:
        LabellingError: if there is no store or no record of this code.
    """
    store = existing_store(path)
    if code is not None:
        codes = {record.input.code for record in _records(store) if record.input}
        if code not in codes:
            raise LabellingError(
                f"no record of {code!r} in {store.path}; there are {', '.join(sorted(codes))}"
            )
    dropped: Counter[bool] = Counter()

    def lines() -> Iterator[bytes]:
        for key in store:
            failed = store.failed(key)
            if (failed or finished) and code in (None, _code(store[key])):
                dropped[failed] += 1
            else:
                yield store.line(key)

    store.rewrite(lines)
    return (
        f"{store.path}: dropped {dropped[True]} failed calculations and {dropped[False]} finished "
        f"labels, kept {len(LabelStore(path))} records"
    )


def _records(store: LabelStore) -> Iterator[Record]:
    return map(store.__getitem__, store)


def _hours(hours: float, counts: Counter) -> str:
    """Those that are recorded, and of how many calculations if not of all."""
    if not counts["timed"]:
        return "not recorded"
    n_all = counts["finished"] + counts["failed"]
    return f"{hours:.3g}" + (f" for {counts['timed']}" if counts["timed"] < n_all else "")


def _code(record: Record) -> str | None:
    return record.input.code if record.input else None


def _conflicts(key: str, stores: Sequence[LabelStore]) -> Iterator[str]:
    """What stores that have finished labels of a key disagree about."""
    first = stores[0]
    for other in stores[1:]:
        one, two = first[key].labels, other[key].labels
        difference = one and two and _difference(one, two)
        if difference:
            yield f"{key}: {difference} in {first.where(key)} and {other.where(key)}"


def _difference(one: Labels, two: Labels) -> str:
    if one.keys() != two.keys():
        return f"only one has {', '.join(sorted(one.keys() ^ two.keys()))}"
    for name, value in one.items():
        if value.shape != two[name].shape:
            return f"{name} has shapes {value.shape} and {two[name].shape}"
        if not np.allclose(value, two[name], rtol=_TOLERANCE, atol=_TOLERANCE):
            return f"{name} differs by {np.abs(value - two[name]).max():.2g}"
    return ""


def _most_telling(key: str, stores: Sequence[LabelStore]) -> LabelStore:
    """The first that has the input of a record beside it, if any has; then that with its time."""
    if len(stores) == 1:
        return stores[0]

    def told(store: LabelStore) -> tuple[bool, bool]:
        record = store[key]
        return record.input is not None, record.seconds is not None

    return max(stores, key=told)
