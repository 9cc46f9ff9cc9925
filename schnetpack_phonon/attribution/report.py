"""From a model and structures to tables of bonds, figures and a verdict in a folder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from matplotlib.figure import Figure
from schnetpack.model import NeuralNetworkPotential

from schnetpack_phonon.attribution import checks, figures, results
from schnetpack_phonon.attribution.bond_attribution import attribute, unseen_terms
from schnetpack_phonon.attribution.edges import check_model, output_component
from schnetpack_phonon.attribution.faithfulness import subset_effects, untrained
from schnetpack_phonon.attribution.methods import check_method
from schnetpack_phonon.attribution.results import write_table
from schnetpack_phonon.common.errors import AttributionError
from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.common.properties import DISTANCE, PROPERTIES, expected, factor
from schnetpack_phonon.data.reading import Structure
from schnetpack_phonon.models.trained.units import units_of

#: Structures at a time: limits the memory of what is not yet in tables.
_AT_ONCE = 16


@dataclass(frozen=True)
class Settings:
    """How bonds are attributed, see :func:`.attribute`.

    Attributes:
        output: scalar output of the model or a component of a tensor.
        kind: ``displacement`` or ``mask``.
        method: of Captum.
        n_steps: quadrature nodes.
        n_subsets: random subsets of bonds of each structure for the faithfulness.
        control_seed: of the weights of the untrained control; None for no control.
        unit: of the output, see :func:`in_the_unit_of`; by default the unit of our property of
            that name.
        inputs: other inputs of the model.
    """

    output: str
    kind: str = "displacement"
    method: str = "IntegratedGradients"
    n_steps: int = 8
    n_subsets: int = 16
    control_seed: int | None = 0
    unit: str | None = None
    inputs: Mapping[str, torch.Tensor] | None = None

    @property
    def property_unit(self) -> str:
        known = PROPERTIES.get(self.output.split("[")[0])
        return self.unit if self.unit is not None else known.unit if known else ""

    @property
    def label(self) -> str:
        """Name of the output in figures, with its unit."""
        key, bracket, rest = self.output.partition("[")
        name = (PROPERTIES[key].label if key in PROPERTIES else key) + bracket + rest
        return f"{name} ({self.property_unit})" if self.property_unit else name


def in_the_unit_of(
    model: NeuralNetworkPotential,
    settings: Settings,
    run: Path | None = None,
    given: Mapping[str, str] | None = None,
) -> Settings:
    """Settings with the unit of the model's output.

    Args:
        model: SchNetPack model.
        settings: with a unit, if the model does not tell it.
        run: folder of its run.
        given: units of its training data.

    Raises:
        UnitError: as :func:`.units_of` does.
        AttributionError: for a model whose lengths are not in Ang.
    """
    key = settings.output.partition("[")[0]
    given = {**(given or {}), **({key: settings.unit} if settings.unit else {})}
    units = units_of(model, run, given, [key])
    if factor(units[DISTANCE], expected(DISTANCE)) != 1.0:
        raise AttributionError(
            f"the model takes lengths in {units[DISTANCE]}; attribution needs one that was trained "
            "with distance_unit: Ang of the data module"
        )
    return replace(settings, unit=units.get(key, settings.property_unit))


@dataclass(frozen=True)
class Tables:
    """Results, in tables that can be joined over processes.

    Attributes:
        bonds: one row for each bond by the trained model, the even part.
        structures: one row for each structure and model.
        totals: one row for each structure, model, bond type and shell.
        faithfulness: one row for each structure and random subset of bonds.
    """

    bonds: pd.DataFrame
    structures: pd.DataFrame
    totals: pd.DataFrame
    faithfulness: pd.DataFrame

    def shares(self, *keys: str) -> pd.DataFrame:
        """Variance shares by ``bond_type``, or by that and ``shell``."""
        return results.group_shares(self.totals, self.structures, keys)


def measure(
    model: NeuralNetworkPotential, structures: Sequence[Structure], settings: Settings
) -> Tables:
    """Attributes structures by the model and by its untrained control, with a progress bar."""
    check_method(settings.kind, settings.method)
    check_model(model)
    output_component(model, settings.output)
    how = settings.output, settings.kind, settings.method, settings.n_steps
    faithful = settings.kind == "displacement" and settings.method != "Saliency"
    names = ["trained"] if settings.control_seed is None else ["trained", "untrained"]
    bonds, rows, totals, effects = [], [], [], []
    total = len(names) * len(structures)
    # A Trainer of Lightning tests in inference mode, whose tensors have no gradients.
    with (
        torch.inference_mode(False),
        Progress("bond attribution", total, unit="structures") as progress,
    ):
        for name in names:
            one = model if name == "trained" else _control(model, settings)
            for first in range(0, len(structures), _AT_ONCE):
                found = attribute(
                    one,
                    structures[first : first + _AT_ONCE],
                    *how,
                    even=name == "trained",
                    unit=settings.property_unit,
                    inputs=settings.inputs,
                    progress=progress.update,
                )
                for a in found:
                    rows.append({"model": name, **a.summary()})
                    own = a.totals().assign(model=name, index=a.index, structure=a.structure)
                    totals.append(own)
                    if name == "trained":
                        bonds.append(a.bonds())
                        if faithful:
                            n, inputs = settings.n_subsets, settings.inputs
                            effects.append(subset_effects(one, a, n, inputs=inputs))
    none = pd.DataFrame(columns=["index", "structure", "predicted", "actual"])
    return Tables(
        _joined(bonds), pd.DataFrame(rows), _joined(totals), _joined(effects) if effects else none
    )


def clear_part(folder: Path, rank: int) -> None:
    """Removes the file of this process from an earlier run."""
    (folder / f"{rank}.json").unlink(missing_ok=True)


def write_part(folder: Path, rank: int, tables: Tables) -> None:
    """Keeps the results of one process for :func:`merge_parts`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        name: {key: (str(table[key].dtype), table[key].tolist()) for key in table}
        for name, table in vars(tables).items()
    }
    with replacing(folder / f"{rank}.json") as part:
        part.write_text(json.dumps(content))


def _read_part(file: Path) -> Tables:
    content = json.loads(file.read_text())
    return Tables(
        **{
            name: pd.DataFrame({key: pd.Series(v, dtype=kind) for key, (kind, v) in own.items()})
            for name, own in content.items()
        }
    )


def merge_parts(folder: Path, n_ranks: int) -> Tables:
    """Joins the results of the processes, each structure once, and removes their files.

    Raises:
        FileNotFoundError: if a process left no results.
    """
    files = [folder / f"{rank}.json" for rank in range(n_ranks)]
    parts = [_read_part(file) for file in files]
    owner: dict[int, int] = {}
    merged: dict[str, pd.DataFrame] = {}
    for field in fields(Tables):
        tables = []
        for rank, part in enumerate(parts):
            table = getattr(part, field.name)
            if len(table):
                for index in table["index"].unique():
                    owner.setdefault(int(index), rank)
                table = table[table["index"].map(owner) == rank]
                tables.append(table)
        merged[field.name] = _joined(tables) if tables else table
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return Tables(**{k: v.sort_values("index", kind="stable") for k, v in merged.items()})


def write(
    folder: Path,
    tables: Tables,
    structures: Sequence[Structure],
    model: NeuralNetworkPotential,
    settings: Settings,
    save: Callable[[Figure, str], None],
    seeds: float | None = None,
) -> list[str]:
    """Writes tables, structure files, figures and the verdict.

    Args:
        folder: for the tables.
        tables: of :func:`measure`.
        structures: those of the tables.
        model: the trained one.
        settings: as for :func:`measure`.
        save: stores a figure under a name.
        seeds: :func:`.stability` over runs.

    Returns:
        The verdict.
    """
    by_type, by_shell = tables.shares("bond_type"), tables.shares("bond_type", "shell")
    sums = tables.totals.pivot_table(
        index=["model", "index"], columns="bond_type", values="sum", aggfunc="sum"
    ).reset_index()
    with_sums = tables.structures.merge(sums, on=["model", "index"])
    write_table(with_sums, folder / results.ATTRIBUTIONS)
    write_table(tables.bonds, folder / results.BONDS)
    write_table(by_type, folder / results.SHARES)
    write_table(by_shell, folder / results.SHELLS)
    if len(tables.faithfulness):
        write_table(tables.faithfulness, folder / results.FAITHFULNESS)
    displaced = [(s.index, s.displaced) for s in structures]
    results.write_bond_extxyz(folder / results.EXTXYZ, displaced, tables.bonds)
    results.write_dump_local(folder / results.DUMP_LOCAL, displaced, tables.bonds)
    unseen = unseen_terms(model, mask=settings.kind == "mask")
    verdict = checks.verdict(
        tables.structures, by_type, tables.faithfulness, seeds, unseen, settings.kind
    )
    with replacing(folder / results.VERDICT) as part:
        part.write_text("\n".join(verdict) + "\n")
    if by_type["share"].notna().any():
        drawn = by_type.dropna(subset="share")
        save(figures.bond_shares(drawn, settings.output.split("[")[0]), "bond_shares")
    if settings.kind == "displacement":
        save(figures.against_length(tables.bonds, settings.label), "bond_lengths")
    r = checks.correlation(tables.faithfulness)
    if np.isfinite(r):
        figure = figures.predicted_against_actual(tables.faithfulness, r, settings.label)
        save(figure, "bond_faithfulness")
    crystal, own = _first(tables, structures)
    title = f"{own['structure'].iloc[0]}, structure {structures[0].index}"
    save(figures.snapshot({title: (crystal, own)}, settings.label), "bonds_3d")
    return verdict


def compare(
    found: Mapping[str, Tables], structures: Sequence[Structure], settings: Settings
) -> tuple[Figure, float]:
    """One structure by several models, and the correlation of their bonds."""
    pictures = {name: _first(tables, structures) for name, tables in found.items()}
    figure = figures.snapshot(pictures, settings.label)
    return figure, checks.stability([tables.bonds for tables in found.values()])


def _control(model: NeuralNetworkPotential, settings: Settings) -> NeuralNetworkPotential:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return untrained(model, settings.control_seed or 0)


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _first(tables: Tables, structures: Sequence[Structure]) -> tuple[Atoms, pd.DataFrame]:
    """The first displaced crystal and its bonds."""
    first = structures[0]
    return first.displaced, tables.bonds[tables.bonds["index"] == first.index]
