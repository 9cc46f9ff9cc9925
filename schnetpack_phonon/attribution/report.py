"""One model and some structures -> tables of bonds, figures and a verdict in a folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from schnetpack.model import NeuralNetworkPotential

from schnetpack_phonon.attribution import figures as bond_figures
from schnetpack_phonon.attribution import trust
from schnetpack_phonon.attribution.bond_attribution import attribute
from schnetpack_phonon.attribution.faithfulness import freezing, untrained
from schnetpack_phonon.attribution.figures import bond_shares
from schnetpack_phonon.attribution.methods import check_method
from schnetpack_phonon.attribution.model_checks import check_model, output_component, unseen_terms
from schnetpack_phonon.attribution.results import (
    ATTRIBUTIONS,
    BONDS,
    DUMP_LOCAL,
    EXTXYZ,
    FAITHFULNESS,
    SHARES,
    SHELLS,
    VERDICT,
    group_shares,
    write_bond_extxyz,
    write_dump_local,
    write_table,
)
from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.common.properties import PROPERTIES
from schnetpack_phonon.data.reading import Structure

#: Structures at once: bounds the memory of what is not yet in tables.
_AT_ONCE = 16


@dataclass(frozen=True)
class Settings:
    """How bonds are attributed, see :func:`.attribute`.

    Attributes:
        output: scalar output of the model or a component of a tensor.
        kind: ``displacement`` or ``mask``.
        method: of Captum.
        n_steps: quadrature nodes.
        n_subsets: random subsets of bonds a structure for the faithfulness.
        control_seed: of the weights of the untrained control; None for no control.
        unit: of the output; the one of our property of that name by default.
        inputs: what else the model reads.
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
        """What figures call the output."""
        key, bracket, rest = self.output.partition("[")
        name = (PROPERTIES[key].label if key in PROPERTIES else key) + bracket + rest
        return f"{name} ({self.property_unit})" if self.property_unit else name


@dataclass(frozen=True)
class Tables:
    """What was found, in tables that can be joined over processes.

    Attributes:
        bonds: one row a bond of the trained model, the even part.
        structures: one row a structure and model.
        totals: one row a structure, model, bond type and shell.
        faithfulness: one row a structure and random subset of bonds.
    """

    bonds: pd.DataFrame
    structures: pd.DataFrame
    totals: pd.DataFrame
    faithfulness: pd.DataFrame

    def shares(self, *keys: str) -> pd.DataFrame:
        """Variance shares by ``bond_type``, or by that and ``shell``."""
        return group_shares(self.totals, self.structures, keys)


def measure(
    model: NeuralNetworkPotential, structures: Sequence[Structure], settings: Settings
) -> Tables:
    """Attributes structures, with trust figures and the untrained control, and a progress bar."""
    check_method(settings.kind, settings.method)
    check_model(model)
    output_component(model, settings.output)
    models = {"trained": model}
    if settings.control_seed is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            models["untrained"] = untrained(model, settings.control_seed)
    faithful = settings.kind == "displacement" and settings.method != "Saliency"
    bonds, rows, totals, frozen = [], [], [], []
    total = len(models) * len(structures)
    with Progress("bond attribution", total, unit="structures") as progress:
        for label, one in models.items():
            for first in range(0, len(structures), _AT_ONCE):
                found = attribute(
                    one,
                    structures[first : first + _AT_ONCE],
                    settings.output,
                    settings.kind,
                    settings.method,
                    settings.n_steps,
                    even=label == "trained",
                    unit=settings.property_unit,
                    inputs=settings.inputs,
                    progress=progress.update,
                )
                for a in found:
                    rows.append({"model": label, **a.summary()})
                    own = a.totals().assign(model=label, index=a.index, structure=a.structure)
                    totals.append(own)
                    if label == "trained":
                        bonds.append(a.bonds())
                        if faithful:
                            n, inputs = settings.n_subsets, settings.inputs
                            frozen.append(freezing(one, a, n, inputs=inputs))
    columns = ["index", "structure", "predicted", "actual"]
    return Tables(
        _joined(bonds),
        pd.DataFrame(rows),
        _joined(totals),
        _joined(frozen) if frozen else pd.DataFrame(columns=columns),
    )


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def clear_part(folder: Path, rank: int) -> None:
    """Removes what this process left in an earlier run."""
    for path in folder.glob(f"*.{rank}.pkl"):
        path.unlink()


def write_part(folder: Path, rank: int, tables: Tables) -> None:
    """What one process found, to be merged."""
    folder.mkdir(exist_ok=True)
    for field in fields(Tables):
        getattr(tables, field.name).to_pickle(folder / f"{field.name}.{rank}.pkl")


def merge_parts(folder: Path, n_ranks: int) -> Tables:
    """Joins what the processes found, each structure once, and removes their files.

    Raises:
        FileNotFoundError: if a process left nothing.
    """
    merged: dict[str, pd.DataFrame] = {}
    owner: dict[int, int] = {}
    for field in fields(Tables):
        parts = []
        for rank in range(n_ranks):
            part = pd.read_pickle(folder / f"{field.name}.{rank}.pkl")  # our own, just written
            if len(part):
                for index in part["index"].unique():
                    owner.setdefault(int(index), rank)
                parts.append(part[part["index"].map(owner) == rank])
        merged[field.name] = _joined(parts) if parts else part
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
        folder: gets the tables.
        tables: of :func:`measure`.
        structures: those of the tables.
        model: the trained one.
        settings: as for :func:`measure`.
        save: stores a figure under a name.
        seeds: :func:`.stability` across runs.

    Returns:
        The verdict.
    """
    by_type, by_shell = tables.shares("bond_type"), tables.shares("bond_type", "shell")
    sums = tables.totals.pivot_table(
        index=["model", "index"], columns="bond_type", values="sum", aggfunc="sum"
    ).reset_index()
    write_table(tables.structures.merge(sums, on=["model", "index"]), folder / ATTRIBUTIONS)
    write_table(tables.bonds, folder / BONDS)
    write_table(by_type, folder / SHARES)
    write_table(by_shell, folder / SHELLS)
    if len(tables.faithfulness):
        write_table(tables.faithfulness, folder / FAITHFULNESS)
    displaced = [(s.index, s.displaced) for s in structures]
    write_bond_extxyz(folder / EXTXYZ, displaced, tables.bonds)
    write_dump_local(folder / DUMP_LOCAL, displaced, tables.bonds)
    unseen = unseen_terms(model, mask=settings.kind == "mask")
    verdict = trust.verdict(
        tables.structures, by_type, tables.faithfulness, seeds, unseen, settings.kind
    )
    (folder / VERDICT).write_text("\n".join(verdict) + "\n")
    for name, figure in _figures(tables, by_type, structures, settings).items():
        save(figure, name)
    return verdict


def _figures(
    tables: Tables, by_type: pd.DataFrame, structures: Sequence[Structure], settings: Settings
) -> dict[str, Figure]:
    figures = {}
    if by_type["share"].notna().any():
        drawn = by_type.dropna(subset="share")
        figures["bond_shares"] = bond_shares(drawn, settings.output.split("[")[0])
    if settings.kind == "displacement":
        figures["bond_lengths"] = bond_figures.against_length(tables.bonds, settings.label)
    r = trust.correlation(tables.faithfulness)
    if np.isfinite(r):
        figures["bond_faithfulness"] = bond_figures.freezing(tables.faithfulness, r, settings.label)
    first = structures[0]
    own = tables.bonds[tables.bonds["index"] == first.index]
    title = f"{own['structure'].iloc[0]}, structure {first.index}"
    figures["bonds_3d"] = bond_figures.snapshot({title: (first.displaced, own)}, settings.label)
    return figures


def compare(
    found: Mapping[str, Tables], structures: Sequence[Structure], settings: Settings
) -> tuple[Figure, float]:
    """One snapshot by several models, and the correlation of their bonds."""
    first = structures[0]
    pictures = {
        name: (first.displaced, tables.bonds[tables.bonds["index"] == first.index])
        for name, tables in found.items()
    }
    figure = bond_figures.snapshot(pictures, settings.label)
    return figure, trust.stability([tables.bonds for tables in found.values()])
