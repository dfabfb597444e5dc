"""Which sample is at which position: a pure function of (seed, stream, position).

In epoch e the shards are permuted by (seed, e) and concatenated; the resulting N places are shuffled within fixed
windows by (seed, e, window). Stream k of S owns the ⌊N/S⌋ places from ⌊kN/S⌋ on and reads them in order; its
position p is in epoch ⌊p/⌊N/S⌋⌋. So every sample occurs at most once per epoch, N mod S samples are left out of
each epoch, and the order does not depend on processes or workers.
"""

import numpy as np
from numpy.typing import NDArray

from latentscale.bounded_cache import BoundedCache
from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, permutation
from latentscale.wording import counted


class Order:
    """The order of one dataset for one run.

    Args:
        shard_counts: number of samples in each shard, ``[shards]``.
        streams: S, the run's number of streams (``distributed.streams``).
        seed: seed of the run, 0 … 2⁶⁴−1.
        window: size in images of the windows within which places are shuffled.

    Attributes:
        count: N, the number of samples in all shards.
        streams: S.
        samples_per_epoch_per_stream: ⌊N/S⌋.

    Raises:
        UserError: N < S, or the seed or window is out of range.
    """

    def __init__(self, shard_counts: NDArray[np.int64], streams: int, seed: int, window: int) -> None:
        self._shard_counts = np.asarray(shard_counts, dtype=np.int64)
        self.count = int(self._shard_counts.sum())
        self.streams = streams
        self._seed = seed
        self._window_images = window
        if streams < 1:
            raise UserError(f"distributed.streams={streams} is not allowed: it must be at least 1")
        if window < 1:
            raise UserError(f"data.shuffle_window_images={window} is not allowed: it must be at least 1")
        if not 0 <= seed < 2**64:
            raise UserError(f"run.seed={seed} is not allowed: it must be between 0 and 2^64-1")
        if self.count < streams:
            raise UserError(
                f"the data has {counted(self.count, 'sample')}, fewer than distributed.streams={streams}: "
                f"set distributed.streams to at most {self.count} or add data"
            )
        self.samples_per_epoch_per_stream = self.count // streams
        # A stream reads one window and may cross into the next within a batch, and one process may own all
        # streams.
        self._windows: BoundedCache[tuple[int, int], NDArray[np.int64]] = BoundedCache(2 * streams + 2)
        self._layouts: BoundedCache[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = BoundedCache(4)

    def epoch(self, position: int) -> int:
        """The epoch, from 0, of a stream's ``position``."""
        return position // self.samples_per_epoch_per_stream

    def locate(self, stream: int, position: int) -> tuple[int, int]:
        """The (shard, member) at ``position`` (0, 1, … without end) of ``stream``, in O(window + shards)."""
        shards, members = self.locate_run(stream, position, 1)
        return int(shards[0]), int(members[0])

    def locate_run(self, stream: int, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards and members, ``[count]`` each, at positions start … start+count−1 of ``stream``."""
        shards, members = self.locate_runs(range(stream, stream + 1), start, count)
        return shards[0], members[0]

    def locate_runs(self, streams: range, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What :meth:`locate_run` gives for each of several streams, ``[len(streams), count]`` each."""
        if streams and not (streams[0] >= 0 and streams[-1] < self.streams):
            raise ValueError(f"streams {streams} of {self.streams}")
        if start < 0:
            raise ValueError(f"position {start}")
        shards = np.empty((len(streams), count), dtype=np.int64)
        members = np.empty_like(shards)
        first_places = np.array([[stream * self.count // self.streams] for stream in streams], dtype=np.int64)
        filled = 0
        while filled < count:
            # all streams are in the same epoch
            epoch, within_epoch = divmod(start + filled, self.samples_per_epoch_per_stream)
            run = min(count - filled, self.samples_per_epoch_per_stream - within_epoch)
            unshuffled = first_places + np.arange(within_epoch, within_epoch + run)
            windows, within_windows = np.divmod(unshuffled, self._window_images)
            places = np.empty_like(unshuffled)
            for window in set(windows.ravel().tolist()):
                inside = windows == window
                places[inside] = self._shuffled_window(epoch, window)[within_windows[inside]]
            order, ends = self._layout(epoch)
            slots = np.searchsorted(ends, places, side="right")
            chosen = order[slots]
            shards[:, filled : filled + run] = chosen
            members[:, filled : filled + run] = places - (ends[slots] - self._shard_counts[chosen])
            filled += run
        return shards, members

    def locate_steps(
        self, streams: range, steps: range, stream_batch: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards and members of some steps, ordered by stream: ``[len(steps), len(streams) · b]`` each."""
        located = self.locate_runs(streams, steps.start * stream_batch, len(steps) * stream_batch)
        shards, members = (
            each.reshape(-1, len(steps), stream_batch).swapaxes(0, 1).reshape(len(steps), -1) for each in located
        )
        return shards, members

    def windows(self, streams: range, position: int) -> tuple[int, tuple[int, ...]]:
        """The epoch of a position, and its window in each of the given streams."""
        epoch, within_epoch = divmod(position, self.samples_per_epoch_per_stream)
        return epoch, tuple(
            (stream * self.count // self.streams + within_epoch) // self._window_images for stream in streams
        )

    def shards_ahead(self, stream: int, position: int, images: int) -> list[int]:
        """The shards that positions position … position+images−1 of ``stream`` may need, nearest first.

        These are all shards that the windows of those positions overlap. The cost is O(log shards + their number), for
        any window size.
        """
        first_place = stream * self.count // self.streams
        found: dict[int, None] = {}
        end = position + images
        while position < end:
            epoch, within_epoch = divmod(position, self.samples_per_epoch_per_stream)
            run = min(end - position, self.samples_per_epoch_per_stream - within_epoch)
            first_window, last_window = (
                (first_place + place) // self._window_images for place in (within_epoch, within_epoch + run - 1)
            )
            order, ends = self._layout(epoch)
            places = (first_window * self._window_images, min(self.count, (last_window + 1) * self._window_images) - 1)
            first_slot, last_slot = np.searchsorted(ends, places, side="right").tolist()
            found.update(dict.fromkeys(order[first_slot : last_slot + 1].tolist()))
            position += run
        return list(found)

    def _layout(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards in the epoch's order, and the place after the last sample of each."""
        return self._layouts.get(epoch, lambda: self._make_layout(epoch))

    def _make_layout(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = permutation(self._seed, Purpose.ORDER_SHARDS, epoch, 0, len(self._shard_counts))
        return order, np.cumsum(self._shard_counts[order])

    def _shuffled_window(self, epoch: int, window: int) -> NDArray[np.int64]:
        """The places of a window in reading order, int64 ``[size]``; an epoch's last window may be shorter."""
        return self._windows.get((epoch, window), lambda: self._make_window(epoch, window))

    def _make_window(self, epoch: int, window: int) -> NDArray[np.int64]:
        start = window * self._window_images
        size = min(self._window_images, self.count - start)
        return start + permutation(self._seed, Purpose.ORDER_WINDOW, epoch, window, size)
