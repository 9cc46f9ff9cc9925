"""Band gaps of labels as they come in, by crystal and temperature."""

from __future__ import annotations

from collections import defaultdict
from statistics import mean, stdev

from schnetpack_phonon.common.properties import Labels, band_gap, unit

_MOST = 8  # crystals that are listed


class Gaps:
    """Mean and standard deviation of the gaps in each group of snapshots."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, group: tuple[str, str] | None, labels: Labels | None) -> str:
        """Counts a label; returns the gap of its group in words, nothing where there is none.

        Args:
            group: name of the crystal, and temperature or another parameter in words.
            labels: of the snapshot; None if it failed.
        """
        if group is None or labels is None or band_gap not in labels:
            return ""
        self._groups[group].append(labels[band_gap].item())
        return f"gap of {', '.join(group)}: {_spread(self._groups[group])}"

    def lines(self) -> list[str]:
        """A line for each crystal, of the first ones if there are many."""
        crystals = list(dict.fromkeys(crystal for crystal, _ in self._groups))
        found = []
        for crystal in crystals[:_MOST]:
            own = (f"{_spread(v)} at {k[1]}" for k, v in self._groups.items() if k[0] == crystal)
            found.append(f"gap of {crystal}: {'; '.join(own)}")
        if len(crystals) > _MOST:
            found.append(f"gaps of {len(crystals) - _MOST} more crystals: in the database")
        return found


def _spread(gaps: list[float]) -> str:
    """As 1.21 ± 0.08 eV (12), with the number of labels."""
    spread = f" ± {stdev(gaps):.2f}" if len(gaps) > 1 else ""
    return f"{mean(gaps):.2f}{spread} {unit(band_gap)} ({len(gaps)})"
