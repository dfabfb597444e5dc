"""Data that not even a node's cache can hold: every stream reads shards through webdataset's pipeline, one by one.

What it promises is less than reading by index does:

- Shards are drawn with replacement and alike often, whatever they hold; within an "epoch" a sample may come twice or
  not at all. Samples are shuffled in a buffer of ``data.shuffle_window_images`` / streams of each stream.
- A stream's samples are a function of (run.seed, stream, step at which this process began to read). So 1 or N
  processes that begin at the same step read the same. A run that is resumed does not continue the pipelines: they
  begin anew with the seed of the step it resumes from, and it is not the run that was never interrupted.
- A shard's checksum is known when its end is read: what is damaged on the way is found then, after some of it may
  have been trained on.
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
from latentscale.data.unreadable_samples import MOST_ATTEMPTS, Skipped
from latentscale.decoding.pillow_decoder import ImageRefused
from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, uniforms
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.daemon_threads import run_in_daemon_thread
from latentscale.storage.open_file_limit import read_error

# A buffer that is filled this far gives its first sample; it fills up while it is read.
_INITIAL_PART = 4


class StreamedSample(NamedTuple):
    """A sample as it comes out of a tar.

    Attributes:
        image: the encoded file.
        label: −1 without one.
        shard, member: which.
    """

    image: bytes
    label: int
    shard: int
    member: int


class StreamingReader(StepReader):
    """Reads the steps that follow one another; see the module's promises.

    Args:
        dataset, owned_streams, stream_batch, shape, layout, treatment: as a StepReader's.
        order: only its number of streams is used.
        seed: of the run.
        window_images: samples in the shuffle buffers of all streams together.
        threads: that read and decode, each a stream at a time.
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
        """What several steps hold; where they do not follow the last ones, the pipelines begin anew."""
        if steps.start != self._next_step:
            self._sources = [
                _Source(self._dataset, self._seed, stream, steps.start, self._buffer_images)
                for stream in self._owned_streams
            ]
            self._next_step = steps.start
        images = self._arrays.empty(len(steps), self._layout.size)
        labels = np.empty(images.shape[:2], dtype=np.int64)
        # the layout's inverse: where the i-th sample of a stream stands
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
            # a shorter block may be asked for now, whose samples are good
            for source in self._sources:
                source.give_back()
            raise failures[0]
        for source in self._sources:
            source.forget()
        skipped: dict[int, list[Skipped]] = {}
        for (_, step), of_stream in sorted(found.items()):
            if of_stream:
                skipped.setdefault(step, []).extend(of_stream)
        self._next_step = steps.stop
        if self._preprocessing.horizontal_flip:
            self._arrays.mirror(images, self._flips(steps))
        return Block(torch.from_numpy(self._arrays.samples(images)), torch.from_numpy(labels), skipped)

    def _next_into(self, source: "_Source", out: NDArray[Any], skipped: list[Skipped]) -> int:
        """Decode the stream's next sample that can be; its label."""
        for _ in range(MOST_ATTEMPTS + 1):
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
            f"{MOST_ATTEMPTS} samples of a stream in a row cannot be read, the last as {skipped[-1].reason}"
        )


class _Source:
    """One stream's samples without end; what was taken can be given back until it is forgotten."""

    def __init__(self, dataset: ShardedDataset, seed: int, stream: int, step: int, buffer_images: int) -> None:
        self._dataset = dataset
        self._samples = self._pipeline(seed, stream, step, buffer_images)
        self._waiting: deque[StreamedSample] = deque()
        self._taken: list[StreamedSample] = []
        self._reading = 0
        self._error: UserError | None = None

    def take(self) -> StreamedSample:
        """The next sample; UserError where its shard cannot be read, and from then on."""
        sample = self._waiting.popleft() if self._waiting else self._read()
        self._taken.append(sample)
        return sample

    def give_back(self) -> None:
        """What was taken will be taken again."""
        self._waiting.extendleft(reversed(self._taken))
        self._taken.clear()

    def forget(self) -> None:
        """What was taken is used."""
        self._taken.clear()

    def _read(self) -> StreamedSample:
        if self._error is not None:
            raise self._error
        try:
            return next(self._samples)
        except UserError as error:
            # webdataset adds its own to an error's arguments
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
            # its own worker seed would depend on the rank
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
        """Streams of the shards, the next one's beginning fetched while one is read."""
        shards = (int(source["url"]) for source in sources)
        shard = next(shards)
        opened = self._open(shard)
        for number, following in enumerate(shards):
            next_opened = self._open(following)
            file = self._dataset.tar(shard)
            self._reading = shard
            with opened as stream:
                digest = _Digest(stream)
                # the number tells apart a shard that is drawn twice in a row
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
                raise UserError(f"{location} is cut off, or holds no image {group['__key__']}: copy it again")
            yield StreamedSample(image, int(group.get("cls", b"-1")), shard, member)


class _Digest(io.RawIOBase):
    """Hashes what is read through it."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._digest = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes."""
        data: bytes = self._stream.read(size)
        self._digest.update(data)
        return data

    def finish(self) -> str:
        """Read to the end; the SHA-256 of everything."""
        while self.read(2**20):
            pass
        return self._digest.hexdigest()
