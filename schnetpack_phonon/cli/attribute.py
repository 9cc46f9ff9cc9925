"""``spkphonon attribute``: bonds of any trained model in any database or structure file."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from schnetpack_phonon.cli.parsers import TRUST, argument, command, trust_of
from schnetpack_phonon.common.files import check_folder, read_npz

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Those of attribution.methods, which is not imported for a help page.
METHODS = ("IntegratedGradients", "GradientShap", "FeatureAblation", "Saliency", "Shapley")


@command(
    "attribute",
    argument("data", help="ASE database (.db) or any structure file that ASE reads"),
    argument(
        "--model",
        required=True,
        action="append",
        type=Path,
        help="run folder or best_model; may be repeated",
    ),
    argument("--output", default="band_gap", help="a scalar, or stress[0,0] (%(default)s)"),
    argument(
        "--ideal", help="structure file of the undisplaced crystal, the same atoms in that order"
    ),
    argument("--split", type=Path, help="split.npz of a run: only its test set"),
    argument("--indices", type=int, nargs="+", help="only these structures, counted from 0"),
    argument("--max-structures", type=int, default=200, help="of them at most (%(default)s)"),
    argument("--kind", choices=("displacement", "mask"), default="displacement"),
    argument("--method", default=METHODS[0], help=f"{', '.join(METHODS)} (%(default)s)"),
    argument("--n-steps", type=int, default=8, help="quadrature nodes (%(default)s)"),
    argument("--unit", help="of the output, if neither model nor training database tell it"),
    argument("--no-control", action="store_true", help="without the untrained control"),
    argument("--device", default="cpu", help="cpu or cuda (%(default)s)"),
    argument("--out", type=Path, default=Path("attribution"), help="folder (%(default)s)"),
    *TRUST,
)
def attribute(options: argparse.Namespace) -> None:
    """Attribute predictions of trained models to bonds.

    Writes tables and figures, and prints what they support. With several models (seeds, or trained
    on different ensembles) the tables of each go to a folder of its own, and their bonds are
    compared.

    Models are read from their weights (best_model.npz). A best_model without that file is a pickle,
    which can run any program when it is opened: it needs --trust.

    Example:
      spkphonon attribute data/NAME.db --model runs/NAME --split runs/NAME/split.npz
      spkphonon attribute frames.extxyz --ideal crystal.extxyz --model MODEL --output energy
    """
    if options.device.partition(":")[0] not in ("cpu", "cuda"):
        options.parser.error(f"--device is {options.device}; expected cpu or cuda")
    check_folder(options.out, "--out")
    for line in _attribute(options):
        print(line)


def _attribute(options: argparse.Namespace) -> list[str]:
    import torch

    from schnetpack_phonon.attribution.report import (
        Settings,
        Tables,
        compare,
        in_the_unit_of,
        measure,
        write,
    )
    from schnetpack_phonon.data.reading import read_structures
    from schnetpack_phonon.models.trained.weights import load_trained
    from schnetpack_phonon.structures.files import read_structure

    settings = Settings(
        options.output,
        options.kind,
        options.method,
        options.n_steps,
        control_seed=None if options.no_control else 0,
        unit=options.unit,
    )
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("no GPU that PyTorch can use: leave --device out")
    indices = _test_set(options.split) if options.split else options.indices
    ideal = read_structure(options.ideal) if options.ideal else None
    structures = read_structures(options.data, indices, ideal)[: options.max_structures]
    if not structures:
        raise ValueError(f"no structures in {options.data}")
    found: dict[str, Tables] = {}
    models = {}
    units: set[str] = set()
    for name, path in _names(options.model).items():
        models[name] = load_trained(path, trust_of(options)).to(options.device)
        own = in_the_unit_of(models[name], settings, path if path.is_dir() else path.parent)
        units.add(own.property_unit)
        if len(units) > 1:
            raise ValueError(
                f"the models predict {options.output} in {' and '.join(sorted(units))}"
            )
        found[name] = measure(models[name], structures, own)
    settings = own
    seeds, lines = None, []
    options.out.mkdir(parents=True, exist_ok=True)
    if len(found) > 1:
        figure, seeds = compare(found, structures, settings)
        _save(options.out, figure, "bonds_3d_models")
    for name, tables in found.items():
        folder = options.out / name if len(found) > 1 else options.out
        folder.mkdir(exist_ok=True)
        verdict = write(
            folder, tables, structures, models[name], settings, partial(_save, folder), seeds
        )
        lines += [f"{folder.resolve()}:", *(f"  {line}" for line in verdict)]
    return lines


def _test_set(split: Path) -> list[int]:
    try:
        return read_npz(split)["test_idx"].tolist()
    except (KeyError, ValueError) as error:
        raise ValueError(f"{split} is no split.npz of a run: it has no 'test_idx'") from error


def _save(folder: Path, figure: Figure, name: str) -> None:
    from schnetpack_phonon.attribution.results import FIGURES
    from schnetpack_phonon.common.style import save_figure

    save_figure(figure, folder / FIGURES / f"{name}.png")


def _names(paths: list[Path]) -> dict[str, Path]:
    """The part of each path by which it differs from the others, such as the run's name."""
    full = [path.resolve() / ("best_model" if path.is_dir() else "") for path in paths]
    if len(set(full)) < len(full):
        raise ValueError("a model is given twice")
    common = Path(os.path.commonpath([path.parent for path in full]))
    names = ["_".join(path.parent.relative_to(common).parts) or path.name for path in full]
    if len(set(names)) < len(names):
        names = ["_".join(path.relative_to(common).parts) for path in full]
    return dict(zip(names, paths, strict=True))
