"""Ensembles without random numbers: single modes, special displacements, renormalisations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from schnetpack_phonon.ensembles.base import SimpleEnsemble, Snapshot, check_thermal
from schnetpack_phonon.phonons.harmonic import HarmonicModel
from schnetpack_phonon.structures.crystals import Crystal, displaced_positions, shortest_distance


class _FixedEnsemble(SimpleEnsemble):
    """Base of the ensembles with a harmonic model and without random numbers."""

    def _displacer(
        self, crystal: Crystal, model: HarmonicModel, parameter: float
    ) -> Callable[[np.ndarray, int, str], Snapshot]:
        """(displacements in Ang, index, family of similar snapshots) -> snapshot."""
        make = self._maker(crystal, model, parameter)

        def snapshot(u: np.ndarray, index: int, family: str) -> Snapshot:
            atoms = model.ideal.copy()
            atoms.positions = displaced_positions(model.ideal, u)
            return make(atoms, model.ideal, index, family)

        return snapshot


class ModeEnsemble(_FixedEnsemble):
    """Displacements along single modes, u_i = Q V_i / sqrt(m), one mode per snapshot.

    Args:
        amplitudes: Q in units of the mode's thermal standard deviation, of either sign.
        temperature: of that standard deviation, in K.
        modes: indices in order of frequency, from 0.
        statistics: ``quantum`` or ``classical``.
    """

    kind = "mode"
    parameter_name = "amplitude"
    parameter_unit = "σ"

    def __init__(
        self,
        amplitudes: Sequence[float],
        temperature: float,
        modes: Sequence[int],
        statistics: str = "quantum",
    ):
        check_thermal([temperature], statistics)
        if not amplitudes or 0 in amplitudes or len(set(amplitudes)) != len(amplitudes):
            raise ValueError(f"amplitudes are {list(amplitudes)}; expected different ones, not 0")
        if not modes or min(modes) < 0 or len(set(modes)) != len(modes):
            raise ValueError(f"modes are {list(modes)}; expected different indices from 0")
        self.parameters = [float(a) for a in amplitudes]
        self.modes = [int(m) for m in modes]
        self.n_snapshots = len(self.modes)
        self.statistics = statistics
        self._temperature = float(temperature)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "amplitudes": self.parameters,
            "temperature": self._temperature,
            "modes": self.modes,
            "statistics": self.statistics,
        }

    def temperature(self, parameter: float) -> float:
        return self._temperature

    def snapshots(
        self, crystal: Crystal, source: HarmonicModel, parameter: float
    ) -> Iterator[Snapshot]:
        """One snapshot per mode."""
        n_modes = source.frequencies.size
        if max(self.modes) >= n_modes:
            raise ValueError(
                f"data.ensemble.modes has {max(self.modes)}; {crystal.name} has {n_modes} modes, "
                f"from 0 to {n_modes - 1}"
            )
        vectors = source.canonical_eigenvectors()
        sigma = source.mode_amplitudes(self._temperature, self.statistics)
        if frozen := [mode for mode in self.modes if sigma[mode] == 0]:
            raise ValueError(
                f"mode {frozen[0]} of {crystal.name} ({source.frequencies[frozen[0]]:.2f} THz) is "
                f"frozen at {self._temperature:g} K with policy {source.policy!r}: use other "
                "modes, or policy 'floor' or 'abs'"
            )
        limit = shortest_distance(source.ideal) / 2
        snapshot = self._displacer(crystal, source, parameter)
        for mode in self.modes:
            u = (parameter * sigma[mode] * vectors[:, mode] / source.root_masses).reshape(-1, 3)
            reach = np.linalg.norm(u, axis=1).max()
            if reach > limit:
                raise ValueError(
                    f"mode {mode} of {crystal.name} ({source.frequencies[mode]:.2f} THz) with "
                    f"amplitude {parameter:g} moves an atom by {reach:.2f} Ang, more than half the "
                    f"shortest distance ({limit:.2f} Ang): lower data.ensemble.amplitudes"
                )
            yield snapshot(u, mode, f"mode/{mode}")


class SpecialEnsemble(_FixedEnsemble):
    """One special displacement per temperature and its mirror image: for averages, not training.

    Every mode is displaced by its standard deviation, with alternating signs in order of frequency
    (Zacharias and Giustino, Phys. Rev. B 94, 075125 (2016), eq. 4; their gauge at the Gamma point
    of the supercell). The harmonic energy is the mean of the thermal ensemble.

    Args:
        temperatures: in K.
        statistics: ``quantum`` or ``classical``.
    """

    kind = "special"
    setting_names = ("statistics",)
    n_snapshots = 2
    similar = 2

    def __init__(self, temperatures: Sequence[float], statistics: str = "quantum"):
        check_thermal(temperatures, statistics)
        self.parameters = [float(t) for t in temperatures]
        self.statistics = statistics

    def snapshots(
        self, crystal: Crystal, source: HarmonicModel, parameter: float
    ) -> Iterator[Snapshot]:
        """The displacement and its mirror image."""
        source.check_amplitudes(parameter, self.statistics)
        vectors = source.canonical_eigenvectors()
        sigma = source.mode_amplitudes(parameter, self.statistics)
        signs = np.where(np.arange(sigma.size) % 2, -1.0, 1.0)
        u = (vectors @ (signs * sigma) / source.root_masses).reshape(-1, 3)
        snapshot = self._displacer(crystal, source, parameter)
        for index, sign in enumerate((1, -1)):
            yield snapshot(sign * u, index, f"special/{parameter!r}")


class RenormalisationEnsemble(_FixedEnsemble):
    """The structures of a renormalisation, the newest first; their labels are in the label store.

    Early ones were drawn from other models than the final one: for training, not for averages.

    Args:
        temperatures: of the renormalisations, in K.
        n_snapshots: per crystal and temperature; fewer if there are not so many.
    """

    kind = "renormalisation"
    setting_names = ("n_snapshots",)

    def __init__(self, temperatures: Sequence[float], n_snapshots: int):
        check_thermal(temperatures)
        self.parameters = [float(t) for t in temperatures]
        self.n_snapshots = n_snapshots

    def snapshots(
        self, crystal: Crystal, source: HarmonicModel, parameter: float
    ) -> Iterator[Snapshot]:
        """The structures, the newest first."""
        if source.renormalization is None:
            raise ValueError(
                f"the phonons of {crystal.name} are not renormalised: set "
                "data/phonons=renormalised, or use data/ensemble=phonon"
            )
        snapshot = self._displacer(crystal, source, parameter)
        for index, positions in enumerate(source.renormalization.positions[::-1]):
            u = positions - source.ideal.positions
            yield snapshot(u, index, f"renormalisation/{parameter!r}/{index}")
