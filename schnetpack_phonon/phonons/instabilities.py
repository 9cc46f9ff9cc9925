"""Treatment of modes with an imaginary or a very low frequency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schnetpack_phonon.common.errors import check_choice, check_positive

POLICIES = ("error", "abs", "floor", "freeze")


@dataclass(frozen=True)
class Instabilities:
    """How modes of imaginary or very low frequency are sampled.

    Attributes:
        policy: ``error`` raises an error; ``abs`` takes the absolute frequency; ``floor`` takes the
            absolute frequency, at least ``floor``; ``freeze`` leaves these modes undisplaced.
        floor: in THz. A mode below it is very low.
    """

    policy: str = "floor"
    floor: float = 1.5

    def __post_init__(self):
        check_choice(POLICIES, policy=self.policy)
        check_positive("THz", floor=self.floor)

    @property
    def settings(self) -> dict[str, str | float]:
        return {"policy": self.policy, "floor": float(self.floor)}

    def __str__(self) -> str:
        return f"floor {self.floor:g} THz" if self.policy == "floor" else self.policy

    def apply(self, frequencies: np.ndarray) -> np.ndarray:
        """Frequencies for sampling, in THz; 0 for a frozen mode.

        Args:
            frequencies: signed, imaginary ones negative, in THz, shape=(n_modes,).
        """
        if self.policy == "abs":
            low = np.abs(frequencies) < 0.01
            if low.any():
                raise ValueError(
                    f"mode {np.flatnonzero(low)[0]} has {frequencies[low][0]:.4f} THz; with policy "
                    "'abs' its displacement would diverge: use 'floor' or 'freeze'"
                )
            return np.abs(frequencies)
        if self.policy == "floor":
            return np.maximum(np.abs(frequencies), self.floor)
        if self.policy == "freeze":
            return np.where(frequencies < self.floor, 0.0, frequencies)
        if frequencies.min() < self.floor:
            raise ValueError(
                f"{(frequencies < 0).sum()} imaginary modes, the lowest at "
                f"{frequencies.min():.2f} THz, and {(frequencies < self.floor).sum()} of "
                f"{frequencies.size} modes below {self.floor} THz; expected none: use policy "
                "'floor', 'abs' or 'freeze'"
            )
        return frequencies
