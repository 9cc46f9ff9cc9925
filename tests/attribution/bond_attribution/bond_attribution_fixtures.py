"""What the tests of this folder share."""

from __future__ import annotations

from schnetpack_phonon.attribution.results import BondAttribution


def bonds(attribution: BondAttribution) -> list[tuple[int, ...]]:
    path, k = attribution.path, attribution.path.first
    return list(zip(path.idx_i[k], path.idx_j[k], *path.image[k].T, strict=True))
