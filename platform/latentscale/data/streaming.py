"""Streaming, for data too large for a node's cache: each stream reads shards one by one in a webdataset pipeline.

It guarantees less than reading by index:

- Shards are drawn uniformly with replacement, whatever their sizes; within an "epoch" a sample may occur twice or
  never. Each stream shuffles its samples in a buffer of ``data.shuffle_window_images`` / streams.
- A stream's samples are a function of (run.seed, stream, step at which this process started reading). So any number
  of processes that start at the same step read the same samples. A resumed run does not continue the pipelines: they
  start again with the seed of the step it resumes from, so the run differs from an uninterrupted one.
- A shard's checksum is verified only at its end, so the run may have trained on samples of a damaged shard before the
  damage is found.
"""

import hashlib
import io
import random
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from latentscale.data.order import Order
from latentscale.data.step_reader import Block, Preprocessing, StepReader
from latentscale.data.unreadable_samples import MAX_ATTEMPTS, Skipped
from latentscale.decoding.pillow_decoder import ImageRefused
from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, uniforms
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.daemon_threads import run_in_daemon_thread
from latentscale.storage.open_file_limit import read_error

# The buffer yields its first sample when 1/4 of it is filled; it fills up during reading.
_INITIAL_PART = 4


class StreamedSample(NamedTuple):
    """A sample as stored in a shard.

    Attributes:
        image: the encoded file.
        label: index of the label; −1 if it has none.
        shard, member: index of the shard, and of the sample within it.
    """

    image: bytes
    label: int
    shard: int
    member: int


class StreamingReader(StepReader):
    """Reads consecutive steps; the module's docstring says what it guarantees.

    Args:
        dataset, owned_streams, stream_batch, shape, layout, preprocessing: as in StepReader.
        order: only its number of streams is used.
        seed: seed of the run.
        window_images: number of samples in the shuffle buffers of all streams together.
        threads: number of threads that read and decode, each one stream at a time.
    """

    def __init__(
        self,
        dataset: ShardedDataset,
        order: Order,
        owned_streams: range,
        stream_batch: int,
        shape: tuple[int, ...],
        layout: NDArray[np.int64],
        preprocessing: Preprocessing,
        *,
        seed: int,
        window_images: int,
        threads: int,
    ) -> None:
        super().__init__(dataset, order, owned_streams, stream_batch, shape, layout, preprocessing)
        self._seed = seed
        self._buffer_images = max(1, window_images // order.streams)
        self._threads = max(1, threads)
        self._next_step: int | None = None
        self._sources: list[_Source] = []

    def block(self, steps: range) -> Block:
        """Read several steps; if they do not follow the last ones, the pipelines restart."""
        if steps.start != self._next_step:
            self._sources = [
                _Source(self._dataset, self._seed, stream, steps.start, self._buffer_images)
                for stream in self._owned_streams
            ]
            self._next_step = steps.start
        images = self._arrays.empty(len(steps), self._layout.size)
        labels = np.empty(images.shape[:2], dtype=np.int64)
        # the layout's inverse: the row of each stream's i-th sample
        rows = np.argsort(self._layout, kind="stable").reshape(len(self._owned_streams), self._stream_batch)

        def read_streams(first: int) -> None:
            for number in range(first, len(self._sources), self._threads):
                for i, step in enumerate(steps):
                    for row in rows[number].tolist():
                        labels[i, row] = self._next_into(self._sources[number], images[i, row], found[number, step])

        found: dict[tuple[int, int], list[Skipped]] = defaultdict(list)
        tasks = [run_in_daemon_thread(partial(read_streams, first), "streaming") for first in range(self._threads)]
        failures = [error for task in tasks if (error := task.exception()) is not None]
        if failures:
            # the caller may now read a shorter block, whose samples are good
            for source in self._sources:
                source.put_back()
            raise failures[0]
        for source in self._sources:
            source.commit()
        skipped: dict[int, list[Skipped]] = {}
        for (_, step), of_stream in sorted(found.items()):
            if of_stream:
                skipped.setdefault(step, []).extend(of_stream)
        self._next_step = steps.stop
        if self._preprocessing.horizontal_flip:
            self._arrays.mirror(images, self._flips(steps))
        return Block(torch.from_numpy(self._arrays.samples(images)), torch.from_numpy(labels), skipped)

    def _next_into(self, source: "_Source", out: NDArray[Any], skipped: list[Skipped]) -> int:
        """Decode the stream's next readable sample; return its label."""
        for _ in range(MAX_ATTEMPTS + 1):
            sample = source.take()
            try:
                self._arrays.decode(sample.image, out)
            except ImageRefused as refusal:
                reason = f"{self._dataset.location(sample.shard, sample.member)} {refusal}"
                if not self._preprocessing.skip_errors:
                    raise UserError(reason) from refusal
                skipped.append(Skipped(sample.shard, sample.member, reason))
            else:
                return sample.label
        raise UserError(
            f"{MAX_ATTEMPTS} samples of a stream in a row cannot be read; the last one: {skipped[-1].reason}"
        )


class _Source:
    """The endless samples of one stream; samples taken since the last commit can be put back."""

    def __init__(self, dataset: ShardedDataset, seed: int, stream: int, step: int, buffer_images: int) -> None:
        self._dataset = dataset
        self._samples = self._pipeline(seed, stream, step, buffer_images)
        self._waiting: deque[StreamedSample] = deque()
        self._taken: list[StreamedSample] = []
        self._reading = 0
        self._error: UserError | None = None

    def take(self) -> StreamedSample:
        """The next sample.

        Raises:
            UserError: its shard cannot be read; every later call raises the same.
        """
        sample = self._waiting.popleft() if self._waiting else self._read()
        self._taken.append(sample)
        return sample

    def put_back(self) -> None:
        """Return the samples taken since the last commit, to be taken again."""
        self._waiting.extendleft(reversed(self._taken))
        self._taken.clear()

    def commit(self) -> None:
        """Keep no record of the samples taken so far; they cannot be put back any more."""
        self._taken.clear()

    def _read(self) -> StreamedSample:
        if self._error is not None:
            raise self._error
        try:
            return next(self._samples)
        except UserError as error:
            # webdataset appends to an error's arguments
            self._error = UserError(error.args[0])
        except Exception as error:
            location = self._dataset.folder.location(self._dataset.tar(self._reading).name)
            self._error = UserError(
                f"{location} cannot be read ({error.args[0] if error.args else error}): {self._remedy}"
            )
        raise self._error

    def _pipeline(self, seed: int, stream: int, step: int, buffer_images: int) -> Iterator[StreamedSample]:
        import webdataset
        from webdataset.tariterators import group_by_keys, tar_file_expander

        shard_seed, buffer_seed = (uniforms(seed, Purpose.STREAMING, step, stream, 2) * 2**52).astype(np.int64).tolist()
        shards = [str(shard) for shard in range(len(self._dataset.shard_counts))]
        pipeline = webdataset.DataPipeline(
            # webdataset's default worker seed depends on the rank
            webdataset.ResampledShards(shards, seed=shard_seed, deterministic=True, worker_seed=int),
            self._opened,
            tar_file_expander,
            group_by_keys,
            self._samples_of,
            webdataset.shuffle(
                buffer_images, initial=-(-buffer_images // _INITIAL_PART), rng=random.Random(buffer_seed)
            ),
        )
        return iter(pipeline)

    def _opened(self, sources: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Open the shards in turn; the beginning of the next one is fetched while one is read."""
        shards = (int(source["url"]) for source in sources)
        shard = next(shards)
        opened = self._open(shard)
        for number, following in enumerate(shards):
            next_opened = self._open(following)
            file = self._dataset.tar(shard)
            self._reading = shard
            with opened as stream:
                digest = _HashingStream(stream)
                # the number distinguishes two consecutive draws of the same shard
                yield {"url": f"{number} {shard}", "stream": digest}
                if digest.finish() != file.sha256:
                    raise UserError(
                        f"{self._dataset.folder.location(file.name)} is damaged (its SHA-256 is not the one in"
                        f" dataset.json): {self._remedy}"
                    )
            shard, opened = following, next_opened

    @property
    def _remedy(self) -> str:
        return "upload it again" if self._dataset.folder.remote else "copy the shard again"

    def _open(self, shard: int) -> Any:
        file = self._dataset.tar(shard)
        try:
            return self._dataset.folder.stream(file)
        except OSError as error:
            raise read_error(self._dataset.folder.location(file.name), error) from error

    def _samples_of(self, groups: Iterable[dict[str, Any]]) -> Iterator[StreamedSample]:
        url, member = "", 0
        for group in groups:
            member = member + 1 if group["__url__"] == url else 0
            url = group["__url__"]
            shard = int(url.split()[1])
            image = next((group[name] for name in self._dataset.extensions if name in group), None)
            if image is None:
                location = self._dataset.folder.location(self._dataset.tar(shard).name)
                raise UserError(f"{location} is cut off or holds no image {group['__key__']}: {self._remedy}")
            yield StreamedSample(image, int(group.get("cls", b"-1")), shard, member)


class _HashingStream(io.RawIOBase):
    """A stream that hashes what is read through it."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._digest = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes."""
        data: bytes = self._stream.read(size)
        self._digest.update(data)
        return data

    def finish(self) -> str:
        """Read to the end; return the SHA-256 of the whole stream."""
        while self.read(2**20):
            pass
        return self._digest.hexdigest()
