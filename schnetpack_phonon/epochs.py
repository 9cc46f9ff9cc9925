"""How many structures make an epoch."""

from __future__ import annotations

from collections.abc import Sized

from torch.utils.data import RandomSampler


class EpochSampler(RandomSampler):
    """Epochs of one size whatever the number of training structures.

    Structures come in random order, each as often as the others, give or take one. Models of a
    learning curve thereby make equally many steps, and patience means the same for all. A drop-in
    for the host's ``train_sampler_cls``.

    Args:
        data_source: training set.
        num_samples: its size, as the host gives it.
        epoch_size: structures in an epoch.
    """

    def __init__(self, data_source: Sized, num_samples: int, epoch_size: int):
        super().__init__(data_source, num_samples=epoch_size)
