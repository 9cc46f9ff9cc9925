"""``spkphonon predict``: properties of structures by trained models, as a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from schnetpack_phonon.cli.parsers import TRUST, argument, command, trust_of


@command(
    "predict",
    argument("model", type=Path, metavar="RUN", help="run folder or best_model"),
    argument(
        "structures",
        nargs="+",
        type=Path,
        metavar="STRUCTURES",
        help="databases, or files with one or more structures that ASE reads",
    ),
    argument(
        "-o", "--out", type=Path, required=True, metavar="OUT.extxyz|.csv", help="file to write"
    ),
    argument(
        "--also",
        action="append",
        default=[],
        type=Path,
        metavar="RUN",
        help="another seed: mean, and standard deviation of the models; may be repeated",
    ),
    argument(
        "--unit",
        action="append",
        default=[],
        metavar="KEY=UNIT",
        help="of an output, if neither model nor training database tell it; may be repeated",
    ),
    argument("--device", default="cpu", help="cpu or cuda (%(default)s)"),
    *TRUST,
)
def predict(options: argparse.Namespace) -> None:
    """Predict all properties of structures, and write them with their units.

    The files need no labels; labels in them are not read. All structures are checked before the
    first is predicted. Where the training database of RUN is found, the distance of each structure
    from the training set is given too: far ones are counted.

    OUT.csv has a line a structure, OUT.extxyz the structures, with energy, forces and stress where
    ASE looks for them. Units: eV, Ang, eV/Ang^3 (stress, ASE's sign), GPa (elastic tensors).

    Runs without best_model.npz need --trust, as for spkphonon report.

    Example:
      spkphonon predict runs/NAME frames.extxyz -o gaps.csv
      spkphonon predict runs/A POSCAR_1 POSCAR_2 -o out.extxyz --also runs/B --also runs/C
    """
    units = dict(each.partition("=")[::2] for each in options.unit)
    if wrong := [key for key, unit in units.items() if not unit]:
        options.parser.error(f"--unit is {wrong[0]}; expected KEY=UNIT, such as energy=kcal/mol")
    from schnetpack_phonon.evaluation.predicted import predict_files  # loads torch

    models, trust = [options.model, *options.also], trust_of(options)
    print(predict_files(models, options.structures, options.out, options.device, units, trust))
