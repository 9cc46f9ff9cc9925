"""Maintenance of label stores: summary, merging and pruning."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.common.page import markdown_table
from schnetpack_phonon.common.properties import Labels
from schnetpack_phonon.labels.store import LabelStore, Record, existing_store

_N_REASONS = 20

# Labels with smaller differences, absolute (eV, Ang) or relative, are the same: other machines
# round differently.
_TOLERANCE = 1e-6


def summary(path: str | Path) -> str:
    """Tables of the content of a store and of the reasons for failures.

    Raises:
        LabellingError: if there is no store or one of its lines is damaged.
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
            ["code", "settings", "task", "finished", "failed", "worker-hours"],
            [
                [*group, str(n["finished"]), str(n["failed"]), _hours(hours[group], n)]
                for group, n in groups.items()
            ],
        ),
    ]
    lines += [f"settings {name}: {text}" for text, name in settings.items()]
    lines += outdated(store, store)
    if reasons:
        most = sorted(reasons.items(), key=lambda item: -len(item[1]))[:_N_REASONS]
        cells = [[reason, str(len(where)), where[0]] for reason, where in most]
        lines += ["", *markdown_table(["reason", "times", "for example"], cells)]
        if len(reasons) > len(most):
            lines.append(f"and {len(reasons) - len(most)} more reasons")
    return "\n".join(lines)


def merge(into: str | Path, sources: Sequence[str | Path]) -> str:
    """Adds all records of other stores to one; finished labels replace failed calculations.

    Raises:
        LabellingError: if two stores have different labels for one key; nothing is written then.
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
                + "\nDelete the lines that are wrong (or less reliable)"
            )
        for key, found in holders.items():
            yield _most_complete(key, found).line(key)

    store.rewrite(lines)
    after = LabelStore(into)
    return f"{after.path}: {len(after)} records, {len(after) - before} of them new"


def prune(path: str | Path, code: str | None = None, finished: bool = False) -> str:
    """Removes failed records, so that these calculations are tried again.

    Args:
        path: the store.
        code: remove only records of this code and version.
        finished: remove its finished labels, too.

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


def outdated(store: LabelStore, keys: Iterable[str]) -> list[str]:
    """Warnings about labels that version 0.1 defined in another way.

    It took what ASE calls the energy, which is extrapolated to zero smearing where a calculator
    smears electrons; records of energies that are free energies are marked. And it took band edges
    of xTB from occupations, where electrons are now counted.

    Args:
        store: holds the labels.
        keys: of the labels that are used together.
    """
    lines = [store.line(key) for key in keys if key in store and not store.failed(key)]
    warnings = []
    for code, mark, what in (
        (
            b"ase ",
            b'"energy":"free"',
            "their energy was the free energy: if the calculator smears electrons, forces are not "
            "its gradient, and two energies are mixed",
        ),
        (
            b"tblite ",
            b'"partial_occupation":',
            "electrons were counted: the gaps of partly filled bands are too large",
        ),
    ):
        own = [line for line in lines if b'"code":"' + code in line and b'"energy":[' in line]
        if n_old := sum(mark not in line for line in own):
            warnings.append(
                f"{n_old} of {len(lines)} labels in {store.path} ({code.decode().strip()}) were "
                f"computed before {what}. To compute them again: spkphonon labels prune --code "
                "NAME --finished"
            )
    return warnings


def _records(store: LabelStore) -> Iterator[Record]:
    return map(store.__getitem__, store)


def _hours(hours: float, counts: Counter) -> str:
    """Worker-hours, with the number of timed calculations if these are not all."""
    if not counts["timed"]:
        return "not recorded"
    n_all = counts["finished"] + counts["failed"]
    return f"{hours:.3g}" + (f" for {counts['timed']}" if counts["timed"] < n_all else "")


def _code(record: Record) -> str | None:
    return record.input.code if record.input else None


def _conflicts(key: str, stores: Sequence[LabelStore]) -> Iterator[str]:
    """Differences between the finished labels that stores have for a key."""
    first = stores[0]
    for other in stores[1:]:
        one, two = first[key].labels, other[key].labels
        what = one and two and difference(one, two)
        if what:
            yield f"{key}: {what} in {first.where(key)} and {other.where(key)}"


def difference(one: Labels, two: Labels) -> str:
    """In what labels of one structure differ, in words; empty if they are the same."""
    if one.keys() != two.keys():
        return f"only one has {', '.join(sorted(one.keys() ^ two.keys()))}"
    for name, value in one.items():
        if value.shape != two[name].shape:
            return f"{name} has shapes {value.shape} and {two[name].shape}"
        if not np.allclose(value, two[name], rtol=_TOLERANCE, atol=_TOLERANCE):
            return f"{name} differs by {np.abs(value - two[name]).max():.2g}"
    return ""


def _most_complete(key: str, stores: Sequence[LabelStore]) -> LabelStore:
    """The first store whose record has its input, if any has it, and then its computing time."""
    if len(stores) == 1:
        return stores[0]
    records = [store[key] for store in stores]
    known = [(record.input is not None, record.seconds is not None) for record in records]
    return stores[known.index(max(known))]
