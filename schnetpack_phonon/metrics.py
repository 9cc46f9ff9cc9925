"""Metrics of tensors, beside those of torchmetrics."""

from __future__ import annotations

import torch
from torchmetrics import Metric


class RelativeFrobeniusError(Metric):
    r"""Mean over structures of :math:`\|C - C_0\|_F / \|C_0\|_F`, in the same unit or none.

    The Frobenius norm is that of the 6 x 6 matrix in Voigt's notation. Predictions and labels have
    the shape (n_structures, 6, 6), or (n_structures, 3, 3) for stresses.
    """

    full_state_update = False
    higher_is_better = False
    total: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: torch.Tensor, labels: torch.Tensor) -> None:
        norm = torch.linalg.matrix_norm
        self.total += (norm(predictions - labels) / norm(labels)).sum()
        self.count += len(labels)

    def compute(self) -> torch.Tensor:
        return self.total / self.count
