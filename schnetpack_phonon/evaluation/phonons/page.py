"""A page about the phonons of a trained model beside those of the data that it learned from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from schnetpack_phonon.calculators.base import POTENTIAL_LABELS, check_gives
from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.files import UNTRUSTED, Trust
from schnetpack_phonon.common.page import Picture, Section, Table, strings, write_page
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.phonons.compared import ComparedPhonons, compared
from schnetpack_phonon.evaluation.runs import read_run
from schnetpack_phonon.evaluation.thermal.vibrations import vibrations
from schnetpack_phonon.models.trained.calculator import TrainedModel
from schnetpack_phonon.phonons.dispersion import bands, dispersion
from schnetpack_phonon.phonons.force_constants import unmixed

_DISTANCE = 0.03  # Ang, where the run's force constants are from no displacements of its own
_WORDS = (
    "Force constants of the model from displacements of {distance:g} Å in the lattice of its data, "
    "beside those of its data. Frequencies in THz, negative where imaginary, at the wave vectors "
    "of the supercell; rigid translations are left out. Between these wave vectors bands are "
    "interpolated, without the non-analytical term of polar crystals."
)
_COUNTS = ("modes", "imaginary, reference", "imaginary, model")


def phonon_report(run: Path, out: Path, trust: Trust = UNTRUSTED) -> str:
    """Writes a page (``index.html``, ``report.md``) and returns what came out, in a few lines.

    Args:
        run: folder of a run with energy and forces.
        out: folder of the page.
        trust: what the files of the run may do.

    Raises:
        ValueError: for a model without forces.
        RunError: if the run is not of this package, or its force constants are not in its label
            store.
    """
    try:
        own = read_run(run, trust)
    except RunError as error:
        raise RunError(f"{run}: {error}") from error
    potential = TrainedModel(str(own.folder), trust=trust.everything)
    check_gives(potential, POTENTIAL_LABELS, "spkphonon phonons")
    crystals, models = vibrations(own, PhononEnsemble([300.0], n_snapshots=1, seed=0))
    known = {name: model.force_constants for (name, _), model in models.items()}
    distance = float(own.resolved("data.phonons.distance", _DISTANCE))
    found = {
        crystal.name: compared(crystal, known[crystal.name], potential, distance)
        for crystal in unmixed(crystals)
        if crystal.name in known
    }
    data = pd.DataFrame([{"crystal": name, **one.summary} for name, one in found.items()])
    formats = {c: "d" if c in _COUNTS else ".2f" for c in map(str, data) if c != "crystal"}
    modes = pd.concat([one.modes.assign(crystal=name) for name, one in found.items()])
    items: list[Picture | Table] = [Table("phonons", strings(data, formats), data)]
    items += [_picture(name, one, modes) for name, one in found.items()]
    claims = [_claim(name, one) for name, one in found.items()]
    sections = [
        Section("What came out", claims, claim=True),
        Section("Phonons", [_WORDS.format(distance=distance)], items),
    ]
    places = write_page(out, f"Phonons of {own.name}", sections)
    return "\n".join([*claims, f"page: {places['page'].absolute()}"])


def _claim(name: str, found: ComparedPhonons) -> str:
    own = found.summary
    return (
        f"{name}: {own['modes']} frequencies differ by {own['rms difference']:.2f} THz (rms); "
        f"imaginary {own['imaginary, model']} of the model, {own['imaginary, reference']} of the "
        f"data; lowest {own['lowest, model']:.2f}, {own['lowest, reference']:.2f} THz"
    )


def _picture(name: str, found: ComparedPhonons, modes: pd.DataFrame) -> Picture:
    curves = {"data": found.reference, "model": found.model}
    figure = bands({k: dispersion(found.crystal, own) for k, own in curves.items()}, name)
    caption = f"{name}: phonon bands and densities of states of the data and of the model."
    return Picture(f"bands_{name}", caption, figure, modes[modes["crystal"] == name])
