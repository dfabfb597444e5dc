"""Fetch remote shards before they are read: the order says which shards the next windows need."""

import logging
import weakref
from itertools import zip_longest
from typing import Any

import numpy as np
from torch import Tensor

from latentscale.data.order import Order
from latentscale.data.step_reader import Block, StepReader
from latentscale.environment import integer_from_environment
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.dataset_files import StorageOptions
from latentscale.storage.prefetch import ShardPrefetcher

_log = logging.getLogger(__name__)


class PrefetchingReader:
    """Reads what a StepReader of a remote dataset reads, and fetches its shards ahead.

    Each reading process has its own fetcher threads; the node's cache makes sure that a shard is fetched only once.

    Args:
        reader: reads the steps.
        dataset, order, owned_streams, stream_batch: those of the reader.
        window_images: window size of the order.
    """

    def __init__(
        self,
        reader: StepReader,
        dataset: ShardedDataset,
        order: Order,
        owned_streams: range,
        stream_batch: int,
        window_images: int,
    ) -> None:
        self._reader, self._dataset, self._order = reader, dataset, order
        self._owned_streams, self._stream_batch = owned_streams, stream_batch
        # reaches the next window and, if shards are larger, the next shard
        self._ahead_images = max(window_images, int(dataset.shard_counts.max()))
        self._fetcher: ShardPrefetcher | None = None
        # the windows whose shards are all held, and the number of releases when that was checked
        self._ready: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fetcher": None, "_ready": None}

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """See StepReader."""
        self._fetch(range(step, step + 1))
        return self._reader(step)

    def block(self, steps: range) -> Block:
        """See StepReader."""
        self._fetch(steps)
        return self._reader.block(steps)

    def wanted(self, steps: range) -> tuple[list[int], list[int], list[int]]:
        """The shards that hold these steps, those of their windows, and those of the next windows, nearest first."""
        located, _ = self._order.locate_steps(self._owned_streams, steps, self._stream_batch)
        first, last = steps.start * self._stream_batch, steps.stop * self._stream_batch - 1
        return np.unique(located).tolist(), self._ahead(first, last - first + 1), self._ahead(last, self._ahead_images)

    def _ahead(self, position: int, images: int) -> list[int]:
        by_stream = (self._order.shards_ahead(stream, position, images) for stream in self._owned_streams)
        return list(dict.fromkeys(shard for turn in zip_longest(*by_stream) for shard in turn if shard is not None))

    def warn_if_cache_is_small(self, step: int, options: StorageOptions) -> None:
        """Warn if the node's cache cannot hold the shards that its processes read at the same time."""
        now = self._ahead(step * self._stream_batch, self._stream_batch)
        processes = integer_from_environment("LOCAL_WORLD_SIZE", 1, minimum=1, maximum=2**20)
        everything = int(self._dataset.shard_sizes_bytes.sum())
        at_once = min(everything, processes * int(self._dataset.shard_sizes_bytes[now].sum()))
        if at_once > options.cache_bytes:
            _log.warning(
                "data.cache_bytes=%d is less than the %d bytes of shards that are read at the same time, so they will"
                " be fetched again and again: raise it, lower data.shuffle_window_images, or set data.mode=streaming",
                options.cache_bytes,
                at_once,
            )

    def _fetch(self, steps: range) -> None:
        if getattr(self._reader, "complete", False):
            # every sample is cached in memory
            if self._fetcher is not None:
                self._fetcher.close()
                self._fetcher = None
            return
        if self._fetcher is None:
            self._fetcher = ShardPrefetcher(self._dataset)
            self._fetcher.start()
            weakref.finalize(self, self._fetcher.close)
        windows = [
            self._order.windows(self._owned_streams, position)
            for position in (steps.start * self._stream_batch, steps.stop * self._stream_batch - 1)
        ]
        if self._ready == (windows, released := self._fetcher.released):
            return
        now, near, later = self.wanted(steps)
        self._fetcher.want(now, [*near, *later])
        if self._fetcher.holds(near):
            self._ready = windows, released
