"""A picture of what a dataset holds: images of each class, or of all, drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from latentscale.data.decoding import decode
from latentscale.data.order import permutation
from latentscale.data.shards import ShardedDataset
from latentscale.latents.draws import Purpose
from latentscale.pictures import Band, Row, columns_that_fit, draw_grid

ROWS = 10
SUBTITLE_CHARACTERS = 140


@dataclass(frozen=True)
class Split:
    """A split's name, its dataset, and its samples' labels ``[N]``."""

    name: str
    dataset: ShardedDataset
    labels: NDArray[np.int64]


def contact_sheet(splits: Sequence[Split]) -> Image.Image:
    """Rows of images of each split: one a label, the commonest first; or as many without labels.

    Args:
        splits: at least one.

    Raises:
        UserError: an image cannot be read.
    """
    bands = [Band(_rows(split)) for split in splits]
    first = splits[0].dataset
    size = "x".join(map(str, first.shape[1:]))
    counts = ", ".join(f"{split.dataset.count} {split.name}" for split in splits)
    return draw_grid(bands, f"{first.name}, {size}", f"{counts}; {first.licence}"[:SUBTITLE_CHARACTERS])


def _rows(split: Split) -> list[Row]:
    dataset, labels = split.dataset, split.labels
    columns = columns_that_fit(*dataset.shape[1:])
    order = permutation(0, Purpose.SNAPSHOT, 0, 0, dataset.count)
    counts = np.bincount(labels[labels >= 0], minlength=len(dataset.labels))
    if not counts.sum():
        starts = range(0, min(dataset.count, ROWS * columns), columns)
        return [Row("" if start else split.name, _images(dataset, order[start : start + columns])) for start in starts]
    commonest = [label for label in np.argsort(-counts, kind="stable")[:ROWS] if counts[label]]
    return [
        Row(f"{split.name}: {dataset.labels[label]}", _images(dataset, order[labels[order] == label][:columns]))
        for label in sorted(commonest)
    ]


def _images(dataset: ShardedDataset, numbers: NDArray[np.int64]) -> Tensor:
    """Samples by their number in the dataset, ``[k, C, H, W]`` in [-1, 1]."""
    ends = np.cumsum(dataset.shard_counts)
    images = []
    for number in numbers:
        shard = int(np.searchsorted(ends, number, side="right"))
        member = int(number - (ends[shard - 1] if shard else 0))
        content, _, _ = dataset.read(shard, member)
        images.append(decode(content, dataset.shape, dataset.where(shard, member)))
    return torch.from_numpy(np.stack(images)).float() / 127.5 - 1.0
