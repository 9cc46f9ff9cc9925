"""``spkphonon import``: finished calculations into the label store."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from schnetpack_phonon.cli.generate import with_data
from schnetpack_phonon.cli.parsers import argument, command


@command(
    "import",
    argument("files", nargs="+", metavar="FILE", help="finished calculations, before overrides"),
    argument("--prefix", default="", help="of the names of labels in the files, such as REF_"),
    argument("--format", help="ASE's name of the format of the files; told from each by default"),
    overrides=True,
)
def import_labels(options: argparse.Namespace) -> None:
    """Store labels of finished calculations, so that generation does not compute them.

    Takes the overrides and options of spktrain, as spkphonon generate does: they say which
    structures are needed, and which code with which settings their labels are of. Each frame is
    compared with these structures, whatever its order of atoms, images, drift and orientation, and
    each output with these settings, as far as it tells them. Frames of other structures and of
    other settings are listed and left out.

    The structures have to be those of the ensemble. spkphonon collect reads the outputs of
    spkphonon export; data/ensemble=labelled makes a database of any others.

    Example:
      spkphonon import runs/*/vasprun.xml experiment=... data/calculator=vasp
      spkphonon import labels.extxyz --prefix=REF_ experiment=... data/calculator=...
    """
    # Overrides have "=", but those that delete something.
    files = [e for e in options.files if Path(e).exists() or not ("=" in e or e[0] == "~")]
    options.overrides = [e for e in options.files if e not in files] + options.overrides
    paths = [Path(os.path.abspath(each)) for each in files]  # Hydra changes the working directory
    if not paths:
        options.parser.error("no FILE; files come before the overrides")

    def act(data: Any, _: Any) -> None:
        from schnetpack_phonon.data.preparation import end_members
        from schnetpack_phonon.labels.imported import import_labels
        from schnetpack_phonon.labels.store import LabelStore

        made = data.generation
        if made.recipe.ensemble.source_of_labels is not None:
            raise ValueError(
                "labels of this database come from its own file (data.ensemble.labels=file): "
                "there is nothing to import"
            )
        crystals = made.recipe.structure.crystals
        ideals = {c.name: c.supercell for c in (*crystals, *end_members(crystals))}
        store = LabelStore(made.label_store, made.shipped_labels)
        calculators = [made.recipe.calculator, *made.recipe.other_calculators.values()]
        given = (paths, options.prefix, options.format)
        print(import_labels(made.planner, calculators, ideals, store, *given))

    with_data(options, act)
