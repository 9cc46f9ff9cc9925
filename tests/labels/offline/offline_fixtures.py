"""What the tests of this folder share."""

from pathlib import Path

from schnetpack_phonon.labels.results import Status


def statuses(summary) -> list[Status]:
    return [result.status for result in summary.results]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
