"""An overview picture of a dataset: random images of each class, or a scatter plot of points."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from latentscale.decoding.sample_arrays import decode, is_points
from latentscale.latents.draws import Purpose, permutation
from latentscale.pictures import (
    COLOURS,
    PointCloud,
    Row,
    RowGroup,
    columns_that_fit,
    draw_grid,
    draw_scatter,
    join_panels,
)
from latentscale.shards.sharded_dataset import ShardedDataset

ROWS = 10
POINTS = 3000
# points are drawn in runs of this length: one run is one request to a remote
RUN_POINTS = 100
SUBTITLE_CHARACTERS = 140
MAX_COLOURS = len(COLOURS) - 1


@dataclass(frozen=True)
class Split:
    """A split's name, its dataset, and its samples' labels ``[N]``."""

    name: str
    dataset: ShardedDataset
    labels: NDArray[np.int64]


def contact_sheet(splits: Sequence[Split]) -> Image.Image:
    """Draw rows of random images for each split, one row per label for the ROWS most common labels.

    Without labels, ROWS rows of images are drawn. Points are drawn as one scatter plot per split, coloured by label.

    Args:
        splits: at least one.

    Raises:
        UserError: an image cannot be read.
    """
    if is_points(splits[0].dataset.shape):
        return _scatter_plots(splits)
    bands = [RowGroup(_rows(split)) for split in splits]
    first = splits[0].dataset
    size = "x".join(map(str, first.shape[1:]))
    counts = ", ".join(f"{split.dataset.count} {split.name}" for split in splits)
    return draw_grid(bands, f"{first.name}, {size}", _shorten(f"{counts}; {first.licence}"))


def _scatter_plots(splits: Sequence[Split]) -> Image.Image:
    """Plot at most POINTS points of each split, one colour per label; only the first two coordinates are shown."""
    first = splits[0].dataset
    (dimensions,) = first.shape
    panels = []
    for split in splits:
        numbers = _drawn_points(split.dataset.count)
        points = torch.nn.functional.pad(_samples(split.dataset, numbers), (0, max(0, 2 - dimensions)))
        labels = torch.from_numpy(split.labels[numbers])
        present = [label for label in range(len(split.dataset.labels)) if bool((labels == label).any())]
        # the first cloud sets the limits; it holds all points and is grey
        clouds = [PointCloud("all" if present else "points", points)]
        clouds += [PointCloud(split.dataset.labels[label], points[labels == label]) for label in present[:MAX_COLOURS]]
        note = "" if dimensions <= 2 else f", the first 2 of {dimensions} coordinates"
        panels.append(draw_scatter(clouds, split.name, f"{len(numbers)} of {split.dataset.count} points{note}"))
    return join_panels(panels, 2, _shorten(f"{first.name}; {first.licence}"))


def _drawn_points(count: int) -> NDArray[np.int64]:
    """Choose at most POINTS of ``count`` points in random runs of RUN_POINTS; returns ascending indices."""
    runs = permutation(0, Purpose.SNAPSHOT, 0, 0, -(-count // RUN_POINTS))[: POINTS // RUN_POINTS]
    numbers = (np.sort(runs)[:, None] * RUN_POINTS + np.arange(RUN_POINTS)).ravel()
    return numbers[numbers < count]


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
    """Read images by their index in the dataset, ``[k, C, H, W]`` in [-1, 1]."""
    return _samples(dataset, numbers).float() / 127.5 - 1.0


def _samples(dataset: ShardedDataset, numbers: NDArray[np.int64]) -> Tensor:
    """Read and decode samples by their index in the dataset, ``[k, …]``."""
    ends = np.cumsum(dataset.shard_counts)
    shards = np.searchsorted(ends, numbers, side="right")
    members = numbers - (ends[shards] - dataset.shard_counts[shards])
    places = list(zip(shards.tolist(), members.tolist(), strict=True))
    files = dataset.read_sparse(places)
    decoded = [
        decode(content, dataset.shape, dataset.location(*place))
        for place, (content, *_) in zip(places, files, strict=True)
    ]
    return torch.from_numpy(np.stack(decoded))


def _shorten(text: str) -> str:
    # the font has no ellipsis character
    return shorten(text, SUBTITLE_CHARACTERS, placeholder=" ...")
