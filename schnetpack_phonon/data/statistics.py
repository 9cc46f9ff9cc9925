"""Statistics of training labels: offsets by composition and the spread about them.

Output modules and losses take their offsets and scales from here. Labels are read once.
"""

from __future__ import annotations

import torch
from schnetpack import properties as structure_keys
from schnetpack.data import AtomsDataModule


def training_labels(
    datamodule: AtomsDataModule, key: str, shape: tuple[int, ...] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and composition of the structures of the training set.

    Args:
        datamodule: any data module of SchNetPack, after its ``setup``.
        key: property of structures.
        shape: of one structure's value.

    Returns:
        Labels in the data module's unit, NaN where there is none, ``shape=(n_structures, *shape)``,
        and the atomic fraction of each element, shape=(n_structures, 101); both float64.

    Raises:
        ValueError: if the property is not in the database or has another shape.
    """
    labels, shares = _read_labels(datamodule, key)
    for k, label in zip(datamodule.train_idx, labels, strict=True):
        if label.shape != (1, *shape):
            raise ValueError(
                f"{key!r} of structure {k} in {datamodule.dataset.datapath} has shape "
                f"{tuple(label.shape)}; expected {(1, *shape)}: choose a head for this shape, or "
                "make the database again"
            )
    return torch.cat(labels), shares


def composition_fit(
    datamodule: AtomsDataModule,
    key: str,
    shape: tuple[int, ...] = (),
    start: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least-squares fit of an intensive property to the composition of the training set.

    A fixed stoichiometry leaves it undetermined: the solution closest to ``start`` is taken.
    Structures without a label (NaN) are left out, of each component for itself; components without
    any label keep their ``start``.

    Args:
        datamodule: any data module of SchNetPack, after its ``setup``.
        key: property of structures.
        shape: of one structure's value.
        start: offset of each element, ``shape=(101, *shape)``; zero by default.

    Returns:
        Offset of each element, ``shape=(101, *shape)``, and the root mean square of the residuals
        of all components, shape=(1,); both float64, in the data module's unit.

    Raises:
        ValueError: as :func:`training_labels` does, and if there is no label.
    """
    labels, shares = training_labels(datamodule, key, shape)
    labels = labels.flatten(1) if shape else labels[:, None]
    present = labels.isfinite()
    check_any(present, datamodule, key)
    offset = labels.new_zeros(101, labels.shape[1])
    if start is not None:
        offset = start.reshape(101, -1).to(offset)
    residuals = []
    for mask in present[:, present.any(dim=0)].T.unique(dim=0):
        alike = (mask == present.T).all(dim=1)
        fit, rest = fit_to_shares(labels[mask][:, alike], shares[mask], offset[:, alike])
        offset[:, alike] = fit
        residuals.append(rest.flatten())
    return offset.reshape(101, *shape), _root_mean_square(torch.cat(residuals))


def fit_to_shares(
    labels: torch.Tensor, shares: torch.Tensor, start: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least-squares fit of labels by a value for each element, the one closest to ``start``.

    Args:
        labels: shape=(n_structures, k).
        shares: atomic fractions of the elements, shape=(n_structures, 101).
        start: value of each element, shape=(101, k); zero by default.

    Returns:
        Value of each element, shape=(101, k), and the residuals, shape=(n_structures, k).
    """
    before = torch.zeros(shares.shape[1], labels.shape[1]) if start is None else start
    before = before.to(labels)
    change = torch.linalg.lstsq(shares, labels - shares @ before, driver="gelsd").solution
    offset = before + change
    return offset, labels - shares @ offset


def label_spread(datamodule: AtomsDataModule, key: str) -> torch.Tensor:
    """How much the labels of the training set vary, in the data module's unit.

    For a property of structures, of any shape, the root mean square of the residuals of
    :func:`composition_fit`; for a property of atoms (forces) that of its components.

    Returns:
        float64, shape=(1,).

    Raises:
        ValueError: as :func:`composition_fit` does.
    """
    labels, _ = _read_labels(datamodule, key)
    if all(len(label) == 1 for label in labels):
        return composition_fit(datamodule, key, tuple(labels[0].shape[1:]))[1]
    values = torch.cat([label.flatten() for label in labels])
    check_any(values.isfinite(), datamodule, key)
    return _root_mean_square(values[values.isfinite()])


def training_elements(datamodule: AtomsDataModule, key: str) -> torch.Tensor:
    """Whether each element is in the training set, whose labels include ``key``; shape=(101,)."""
    return _read_labels(datamodule, key)[1].any(dim=0)


def _read_labels(datamodule: AtomsDataModule, key: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Labels of the training set as stored, and the fraction of each element; read once."""
    read = datamodule.__dict__.setdefault("_training_labels", {})
    if key not in read:
        dataset = datamodule.dataset
        if key not in dataset.available_properties:
            raise ValueError(
                f"no property {key!r} in {dataset.datapath}; there are "
                f"{', '.join(dataset.available_properties)}"
            )
        keys = {key, *dataset.load_properties}  # all in one pass through the database
        labels: dict[str, list[torch.Tensor]] = {k: [] for k in keys}
        counts = []
        with dataset.conn:  # opened once for all of them
            for item in dataset.iter_properties(datamodule.train_idx, load_properties=list(keys)):
                counts.append(torch.bincount(item[structure_keys.Z], minlength=101).double())
                for k, values in labels.items():
                    values.append(item[k].double())
        shares = torch.stack([count / count.sum() for count in counts])
        read.update({k: (values, shares) for k, values in labels.items()})
    return read[key]


def check_any(present: torch.Tensor, datamodule: AtomsDataModule, key: str) -> None:
    """Raises ValueError if no training structure has a label ``key``."""
    if not present.any():
        path = datamodule.dataset.datapath
        raise ValueError(f"no training structure in {path} has a label {key!r}")


def _root_mean_square(values: torch.Tensor) -> torch.Tensor:
    """Never zero, since losses are divided by it; shape=(1,)."""
    return values.square().mean().sqrt().clamp(min=1e-12).reshape(1)
