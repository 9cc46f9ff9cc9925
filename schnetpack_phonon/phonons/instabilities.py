"""Treatment of modes with an imaginary or a very low frequency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schnetpack_phonon.common.errors import check_at_least, check_choice, check_positive

POLICIES = ("error", "abs", "floor", "freeze")
ZERO = 0.01  # THz, as in phonopy: a mode below is imaginary, or zero within the constants' noise


@dataclass(frozen=True)
class Instabilities:
    """How modes of imaginary or very low frequency are sampled.

    A mode below 0.01 THz counts as imaginary. The policy changes imaginary modes only.

    Attributes:
        policy: of imaginary modes: ``error`` raises an error; ``abs`` takes the absolute frequency;
            ``floor`` takes the absolute frequency, at least ``floor``; ``freeze`` leaves these
            modes undisplaced.
        floor: of policy ``floor``, in THz.
        min_frequency: real modes below it are sampled as if they had this frequency, in THz, and
            so move less than they do; 0 leaves all real modes as they are.
    """

    policy: str = "floor"
    floor: float = 1.5
    min_frequency: float = 0.0

    def __post_init__(self):
        check_choice(POLICIES, policy=self.policy)
        check_positive("THz", floor=self.floor)
        check_at_least(0, "THz", min_frequency=self.min_frequency)

    @property
    def settings(self) -> dict[str, str | float]:
        """Without ``min_frequency`` where version 0.1, which had none, sampled the same.

        Its floor raised all modes below it, its policy ``freeze`` froze them.
        """
        settings: dict[str, str | float] = {"policy": self.policy, "floor": float(self.floor)}
        as_before = {"abs": 0.0, "error": 0.0, "floor": self.floor}.get(self.policy)
        if self.min_frequency != as_before:
            settings["min_frequency"] = float(self.min_frequency)
        return settings

    def __str__(self) -> str:
        if self.policy == "floor" and self.min_frequency == self.floor:
            return f"floor {self.floor:g} THz"
        words = f"floor {self.floor:g} THz" if self.policy == "floor" else self.policy
        if self.policy in ("floor", "freeze"):
            words += " for imaginary modes"
        if self.min_frequency:
            words += f", real modes at least {self.min_frequency:g} THz"
        return words

    def apply(self, frequencies: np.ndarray) -> np.ndarray:
        """Frequencies for sampling, in THz; 0 for a frozen mode.

        Args:
            frequencies: signed, imaginary ones negative, in THz, shape=(n_modes,).

        Raises:
            ValueError: for imaginary modes with policy ``error``, and for modes of less than
                0.01 THz with policy ``abs``.
        """
        imaginary = frequencies < ZERO
        real = np.maximum(frequencies, self.min_frequency)
        return np.where(imaginary, self._imaginary(frequencies, imaginary), real)

    def _imaginary(self, frequencies: np.ndarray, imaginary: np.ndarray) -> np.ndarray | float:
        if self.policy == "freeze":
            return 0.0
        absolute = np.abs(frequencies)
        if self.policy == "floor":
            return np.maximum(absolute, self.floor)
        if self.policy == "abs":
            low = absolute < ZERO
            if low.any():
                raise ValueError(
                    f"mode {np.flatnonzero(low)[0]} has {frequencies[low][0]:.4f} THz; with policy "
                    "'abs' its displacement would diverge: use 'floor' or 'freeze'"
                )
        elif imaginary.any():
            raise ValueError(
                f"{imaginary.sum()} of {frequencies.size} modes are imaginary (below {ZERO} THz), "
                f"the lowest at {frequencies.min():.2f} THz; expected none: use policy 'floor', "
                "'abs' or 'freeze'"
            )
        return absolute
