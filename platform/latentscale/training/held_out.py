"""Samples for pictures and evaluations: spread evenly over a data set and read into memory."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from latentscale.decoding.decoder import Decoder
from latentscale.decoding.sample_arrays import decode
from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset


def read_labels(dataset: ShardedDataset, count: int) -> Tensor | None:
    """``[count, d_l]`` int64 categories of the samples that `read_samples` returns; None if any has no label."""
    places = spread(dataset, count)
    stored = np.array([int(dataset.shard_labels(shard)[member]) for shard, member in places])
    return torch.from_numpy(dataset.label_table()[stored]) if (stored >= 0).all() else None


def read_samples(
    dataset: ShardedDataset, limit: int, decoder: Decoder | None = None, skip_errors: bool = False
) -> Tensor:
    """At most ``limit`` samples of a dataset in the order of its shards; `spread` chooses them.

    Returns:
        Images uint8 ``[n, C, H, W]``, or points float32 ``[n, D]``.

    Args:
        decoder: ``auto`` without one.
        skip_errors: leave out what cannot be read, as long as two samples are left.

    Raises:
        UserError: naming what cannot be read.
    """
    images: list[Tensor] = []
    refusal: UserError | None = None
    for place, data in _readable(dataset, spread(dataset, limit), skip_errors):
        try:
            images.append(torch.tensor(decode(data, dataset.shape, dataset.location(*place), decoder)))
        except UserError as error:
            if not skip_errors:
                raise
            refusal = error
    if len(images) < min(2, limit, dataset.count):
        raise refusal or UserError(f"{dataset.path}: too few images for an evaluation can be read: fix the data")
    return torch.stack(images)


def _readable(
    dataset: ShardedDataset, places: Sequence[tuple[int, int]], skip_errors: bool
) -> Iterator[tuple[tuple[int, int], bytes]]:
    """The files at some (shard, member); with ``skip_errors`` without those that cannot be read."""
    if not skip_errors or dataset.folder.remote:
        for place, (data, _, _) in zip(places, dataset.read_sparse(places), strict=True):
            yield place, data
        return
    for place in places:
        try:
            data, _, _ = dataset.read(*place)
        except UserError:
            continue
        yield place, data


def spread(dataset: ShardedDataset, limit: int) -> list[tuple[int, int]]:
    """The shard and member of at most ``limit`` samples: the first of independent draws, else spread evenly.

    Images are often sorted by class, and the first ones would all be of one class.
    """
    ends = dataset.shard_counts.cumsum()
    count = min(limit, dataset.count)
    positions = np.arange(count) if dataset.independent else np.linspace(0, dataset.count - 1, count).astype(np.int64)
    shards = np.searchsorted(ends, positions, side="right")
    members = positions - (ends[shards] - dataset.shard_counts[shards])
    return list(zip(shards.tolist(), members.tolist(), strict=True))
