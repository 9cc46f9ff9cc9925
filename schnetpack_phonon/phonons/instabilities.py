"""What a harmonic ensemble does with modes that have no real frequency, or a very low one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POLICIES = ("error", "abs", "floor", "freeze")


@dataclass(frozen=True)
class Instabilities:
    """How modes of imaginary or very low frequency enter the displacements.

    Attributes:
        policy: ``error`` refuses them; ``abs`` takes the absolute frequency; ``floor`` takes the
            absolute frequency, at least ``floor``; ``freeze`` leaves them undisplaced.
        floor: in THz. Below it a mode counts as very low.
    """

    policy: str = "floor"
    floor: float = 1.5

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise ValueError(
                f"unknown policy {self.policy!r} for imaginary modes; "
                f"there are {', '.join(POLICIES)}"
            )
        if not self.floor > 0:
            raise ValueError(f"floor is {self.floor} THz; expected > 0")

    @property
    def settings(self) -> dict[str, str | float]:
        return {"policy": self.policy, "floor": float(self.floor)}

    def __str__(self) -> str:
        return f"floor {self.floor:g} THz" if self.policy == "floor" else self.policy

    def apply(self, frequencies: np.ndarray) -> np.ndarray:
        """Frequencies that are sampled, in THz; 0 for a frozen mode.

        Args:
            frequencies: signed, imaginary ones negative, in THz, shape=(n_modes,).
        """
        if self.policy == "abs":
            low = np.abs(frequencies) < 0.01
            if low.any():
                raise ValueError(
                    f"mode {np.flatnonzero(low)[0]} has {frequencies[low][0]:.4f} THz; with policy "
                    "'abs' its displacement would diverge: take 'floor' or 'freeze'"
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
                f"{frequencies.size} modes below {self.floor} THz: a harmonic crystal at T needs "
                "real ones. Take policy 'floor', 'abs' or 'freeze' to go on all the same"
            )
        return frequencies
