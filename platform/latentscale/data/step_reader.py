"""Read the samples of a step: a pure function of the step number."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentscale.data.order import Order
from latentscale.data.unreadable_samples import ReplacementSampler, Skipped, UnreadableSample
from latentscale.decoding.decoder import Decoder
from latentscale.decoding.pillow_decoder import ImageRefused
from latentscale.decoding.sample_arrays import is_points, sample_arrays
from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, block_uniforms
from latentscale.shards.sharded_dataset import ShardedDataset

FLIP_PROBABILITY = 0.5

_FILES_PER_READ = 32


class Block(NamedTuple):
    """The samples of some steps.

    Attributes:
        images: images as uint8 ``[steps, n, C, H, W]``, in memory perhaps with C last; points as float32
            ``[steps, n, D]``.
        labels: int64 ``[steps, n]``, −1 for a sample without a label.
        skipped: unreadable samples that were replaced, by step; only steps that have some.
    """

    images: Tensor
    labels: Tensor
    skipped: Mapping[int, list[Skipped]] = {}


class BlockReader(Protocol):
    """Reads steps as a pure function of their numbers; picklable to worker processes."""

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Read the samples ``[n, …]`` and labels ``[n]`` of a step."""

    def block(self, steps: range) -> Block:
        """Read several steps together."""


@dataclass(frozen=True)
class Preprocessing:
    """How samples are decoded and augmented.

    Attributes:
        decoder: turns files into pixels.
        seed: seed of the run, for all draws.
        horizontal_flip: mirror each image with probability 1/2, drawn from (seed, stream, position).
        skip_errors: replace unreadable samples instead of raising.
    """

    decoder: Decoder = field(default_factory=Decoder)
    seed: int = 0
    horizontal_flip: bool = False
    skip_errors: bool = False


class StepReader:
    """Reads and decodes the batches of steps.

    Args:
        dataset: the samples.
        order: maps positions to samples.
        owned_streams: the streams of this process.
        stream_batch: b, samples per stream in a step.
        shape: requested (C, H, W); C may differ from the dataset's (grey and RGB are converted). For points, (D,).
        layout: ``[streams·b]``, the sample in each row, numbered by stream and then by position; None keeps that
            order.
        preprocessing: how samples are decoded and augmented.

    Raises:
        UserError: the dataset's images have another size, or ``shape`` has other than 1 or 3 channels.
    """

    def __init__(
        self,
        dataset: ShardedDataset,
        order: Order,
        owned_streams: range,
        stream_batch: int,
        shape: tuple[int, ...],
        layout: NDArray[np.int64] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        if is_points(dataset.shape) or is_points(shape):
            if dataset.shape != shape:
                raise UserError(
                    f"{dataset.path} holds samples of shape {list(dataset.shape)}, not {list(shape)}: set data.shape"
                    f" to {list(dataset.shape)}, or choose other data"
                )
        elif dataset.shape[1:] != shape[1:]:
            raise UserError(
                f"{dataset.path} holds images of {dataset.shape[1]}x{dataset.shape[2]} pixels, not "
                f"{shape[1]}x{shape[2]}: build the shards again at that resolution, or set data.shape to"
                " the size of the data"
            )
        elif shape[0] not in (1, 3):
            raise UserError(
                f"{dataset.path} cannot be read with {shape[0]} channels: set data.shape to 1 or 3 channels"
            )
        self._dataset = dataset
        self._order = order
        self._owned_streams = owned_streams
        self._stream_batch = stream_batch
        self._layout = np.arange(len(owned_streams) * stream_batch) if layout is None else layout
        self._preprocessing = preprocessing or Preprocessing()
        self._arrays = sample_arrays(shape, self._preprocessing.decoder)
        self._replacements = ReplacementSampler(dataset.shard_counts, self._preprocessing.seed)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Read positions step·b … step·b+b−1 of every owned stream, in the order of the layout.

        Returns:
            Images uint8 ``[streams·b, C, H, W]``, or points float32 ``[streams·b, D]``, and labels int64
            ``[streams·b]`` (−1 for a sample without a label).

        Raises:
            UserError: a sample cannot be read or decoded; the message names its shard and member.
        """
        images, labels, _ = self.block(range(step, step + 1))
        return images[0], labels[0]

    def block(self, steps: range) -> Block:
        """Read several steps."""
        shards, members = self._places(steps)
        images = self._arrays.empty(*shards.shape)
        labels = np.empty(shards.shape, dtype=np.int64)
        skipped: dict[int, list[Skipped]] = {}
        for i, step in enumerate(steps):
            places = list(zip(shards[i].tolist(), members[i].tolist(), strict=True))
            try:
                self._read_all(places, images[i], labels[i])
                continue
            except (UserError, ImageRefused):
                pass  # read one by one below
            for row in self._read_each(places, images[i], labels[i]):
                labels[i, row] = self._replacements.read(
                    *places[row],
                    *self._stream_and_position(step, row),
                    partial(self._read_into, out=images[i, row]),
                    skipped.setdefault(step, []),
                )
        if self._preprocessing.horizontal_flip:
            self._arrays.mirror(images, self._flips(steps))
        return Block(torch.from_numpy(self._arrays.samples(images)), torch.from_numpy(labels), skipped)

    def _places(self, steps: range) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shard and member of each row of the steps, ``[steps, streams·b]`` each."""
        shards, members = self._order.locate_steps(self._owned_streams, steps, self._stream_batch)
        return np.take(shards, self._layout, axis=1), np.take(members, self._layout, axis=1)

    def _stream_and_position(self, step: int, row: int) -> tuple[int, int]:
        """The stream and position of a step's row."""
        stream, within = divmod(int(self._layout[row]), self._stream_batch)
        return self._owned_streams[stream], step * self._stream_batch + within

    def _flips(self, steps: range) -> NDArray[np.bool_]:
        """Which rows of each step are mirrored, ``[steps, streams·b]``."""
        drawn = block_uniforms(
            self._preprocessing.seed, Purpose.HORIZONTAL_FLIP, steps, self._owned_streams, self._stream_batch
        )
        return np.take(drawn.reshape(len(steps), -1), self._layout, axis=1) < FLIP_PROBABILITY

    def _read_all(self, places: list[tuple[int, int]], images: NDArray[Any], labels: NDArray[np.int64]) -> None:
        """Decode samples into uint8 ``[n, H, W, C]`` (points: float32 ``[n, D]``), and write their labels ``[n]``.

        Several files are read before they are decoded: a decoder that is called repeatedly finds its tables in the
        processor's caches, from which reading would evict them.

        Raises:
            UserError, ImageRefused: a sample cannot be read or decoded.
        """
        decode = self._arrays.decode
        for start in range(0, len(places), _FILES_PER_READ):
            files = self._dataset.read_together(places[start : start + _FILES_PER_READ])
            labels[start : start + len(files)] = [label for _, label in files]
            for (data, _), image in zip(files, images[start:], strict=False):
                decode(data, image)

    def _read_each(self, places: list[tuple[int, int]], images: NDArray[Any], labels: NDArray[np.int64]) -> list[int]:
        """Like :meth:`_read_all`, but one by one; return the rows that need a replacement.

        Raises:
            UserError: a sample cannot be read or decoded and may not be replaced; the message names its shard and
                member.
        """
        unreadable = []
        for row, place in enumerate(places):
            try:
                labels[row] = self._read_into(*place, images[row])
            except UnreadableSample:
                unreadable.append(row)
        return unreadable

    def _read_into(self, shard: int, member: int, out: NDArray[Any]) -> int:
        """Decode one sample into uint8 ``[H, W, C]`` (a point: float32 ``[D]``); return its label.

        Raises:
            UserError: the sample cannot be read or decoded; the message names its shard and member.
            UnreadableSample: the same, if another sample may replace it.
        """
        try:
            data, _, label = self._dataset.read(shard, member)
        except UserError as error:
            # remote files are verified on arrival: a failure is the remote's, and another sample would fail too
            if self._preprocessing.skip_errors and not self._dataset.folder.remote:
                raise UnreadableSample(str(error)) from error
            raise
        try:
            self._arrays.decode(data, out)
        except ImageRefused as refusal:
            kind = UnreadableSample if self._preprocessing.skip_errors else UserError
            raise kind(f"{self._dataset.location(shard, member)} {refusal}") from refusal
        return label
