"""Reading the samples of a step: a pure function of the step's number."""

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

_FILES_AHEAD = 32


class Block(NamedTuple):
    """What some steps hold.

    Attributes:
        images: ``[steps, n, …]``: of images uint8 ``[steps, n, C, H, W]``, in memory perhaps with C last; of points
            float32 ``[steps, n, D]``.
        labels: int64 ``[steps, n]``, −1 without one.
        skipped: samples that were replaced because they cannot be read, by step; a step without any is absent.
    """

    images: Tensor
    labels: Tensor
    skipped: Mapping[int, list[Skipped]] = {}


class BlockReader(Protocol):
    """Reads steps: a pure function of their numbers, picklable to worker processes."""

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Samples ``[n, …]`` and labels ``[n]`` of a step."""

    def block(self, steps: range) -> Block:
        """Several steps together."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to samples on their way.

    Attributes:
        decoder: turns files into pixels.
        seed: of the run, for what is drawn.
        horizontal_flip: mirror every second image on average, as drawn by (seed, stream, position).
        skip_errors: replace what cannot be read, instead of raising.
    """

    decoder: Decoder = field(default_factory=Decoder)
    seed: int = 0
    horizontal_flip: bool = False
    skip_errors: bool = False


class StepReader:
    """Reads and decodes the batches of steps.

    Args:
        dataset: where samples are read.
        order: where they stand.
        owned_streams: the streams of this process.
        stream_batch: b, samples of a stream in a step.
        shape: (C, H, W) wanted; C may differ from the dataset's (grey and RGB are converted). (D,) of points.
        layout: ``[streams·b]``, which sample, counted by stream and then by position, stands in each row; None
            leaves them so.
        treatment: of the samples.

    Raises:
        UserError: the dataset's images have another size, or are wanted with other channels than 1 or 3.
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
                    f"{dataset.path} holds samples of {list(dataset.shape)}, not {list(shape)}: name the data that fit"
                )
        elif dataset.shape[1:] != shape[1:]:
            raise UserError(
                f"{dataset.path} holds images of {dataset.shape[1]}x{dataset.shape[2]} pixels, not "
                f"{shape[1]}x{shape[2]}: build the shards again at the wanted resolution, or name the data that fit"
            )
        elif shape[0] not in (1, 3):
            raise UserError(f"{dataset.path} cannot be read with {shape[0]} channels: images have 1 or 3")
        self._dataset = dataset
        self._order = order
        self._owned_streams = owned_streams
        self._stream_batch = stream_batch
        self._layout = np.arange(len(owned_streams) * stream_batch) if layout is None else layout
        self._preprocessing = preprocessing or Preprocessing()
        self._arrays = sample_arrays(shape, self._preprocessing.decoder)
        self._replacements = ReplacementSampler(dataset.shard_counts, self._preprocessing.seed)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Samples at positions step·b … step·b+b−1 of every owned stream, in the order of the layout.

        Returns:
            images uint8 ``[streams·b, C, H, W]``, or points float32 ``[streams·b, D]``, and labels int64
            ``[streams·b]`` (−1 without one).

        Raises:
            UserError: naming the shard and member that cannot be read or decoded.
        """
        images, labels, _ = self.block(range(step, step + 1))
        return images[0], labels[0]

    def block(self, steps: range) -> Block:
        """What several steps hold."""
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
                pass  # now one by one
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
        """The shard and member of each step's rows."""
        shards, members = self._order.locate_steps(self._owned_streams, steps, self._stream_batch)
        return np.take(shards, self._layout, axis=1), np.take(members, self._layout, axis=1)

    def _stream_and_position(self, step: int, row: int) -> tuple[int, int]:
        """The stream and position of a step's row."""
        stream, within = divmod(int(self._layout[row]), self._stream_batch)
        return self._owned_streams[stream], step * self._stream_batch + within

    def _flips(self, steps: range) -> NDArray[np.bool_]:
        """Which rows of the steps are mirrored, ``[steps, streams·b]``."""
        drawn = block_uniforms(
            self._preprocessing.seed, Purpose.HORIZONTAL_FLIP, steps, self._owned_streams, self._stream_batch
        )
        return np.take(drawn.reshape(len(steps), -1), self._layout, axis=1) < FLIP_PROBABILITY

    def _read_all(self, places: list[tuple[int, int]], images: NDArray[Any], labels: NDArray[np.int64]) -> None:
        """Decode samples to uint8 ``[n, H, W, C]`` (points: float32 ``[n, D]``), with their labels ``[n]``.

        Some files are read before they are decoded: a decoder that is called again and again finds its tables in the
        processor's caches, which reading would drive out.

        Raises:
            UserError, ImageRefused: one of them cannot be read or decoded.
        """
        decode = self._arrays.decode
        for start in range(0, len(places), _FILES_AHEAD):
            files = self._dataset.read_together(places[start : start + _FILES_AHEAD])
            labels[start : start + len(files)] = [label for _, label in files]
            for (data, _), image in zip(files, images[start:], strict=False):
                decode(data, image)

    def _read_each(self, places: list[tuple[int, int]], images: NDArray[Any], labels: NDArray[np.int64]) -> list[int]:
        """The same one by one; the rows that others must stand in for.

        Raises:
            UserError: naming the shard and member that cannot be read or decoded, where nothing may stand in for it.
        """
        unreadable = []
        for row, place in enumerate(places):
            try:
                labels[row] = self._read_into(*place, images[row])
            except UnreadableSample:
                unreadable.append(row)
        return unreadable

    def _read_into(self, shard: int, member: int, out: NDArray[Any]) -> int:
        """Decode one sample to uint8 ``[H, W, C]`` (a point: float32 ``[D]``); its label.

        Raises:
            UserError: naming the shard and member that cannot be read or decoded.
            Unreadable: the same, where another sample may stand in for it.
        """
        try:
            data, _, label = self._dataset.read(shard, member)
        except UserError as error:
            # a remote's files are whole when they arrive: what fails is the remote, and no other sample helps
            if self._preprocessing.skip_errors and not self._dataset.folder.remote:
                raise UnreadableSample(str(error)) from error
            raise
        try:
            self._arrays.decode(data, out)
        except ImageRefused as refusal:
            kind = UnreadableSample if self._preprocessing.skip_errors else UserError
            raise kind(f"{self._dataset.location(shard, member)} {refusal}") from refusal
        return label
