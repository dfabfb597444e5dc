"""Which reader feeds a run from shards: by index or streaming, at hand or fetched ahead, remembered or not."""

import numpy as np
from numpy.typing import NDArray

from latentscale.data.memory_cache import MemoryCachedReader
from latentscale.data.order import Order
from latentscale.data.prefetching import PrefetchingReader
from latentscale.data.step_reader import BlockReader, Preprocessing, StepReader
from latentscale.data.streaming import StreamingReader
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.training.prepare import Preparation, storage_options


def shard_reader(
    preparation: Preparation,
    dataset: ShardedDataset,
    order: Order,
    owned: range,
    layout: NDArray[np.int64],
    preprocessing: Preprocessing,
    start: int,
) -> BlockReader:
    """The reader of a process's streams.

    Args:
        owned, layout: see StepReader.
        start: the first step that will be read.
    """
    config, batch = preparation.config, preparation.plan.stream_batch
    window = config.data.shuffle_window_images
    if config.data.mode == "streaming":
        return StreamingReader(
            dataset,
            order,
            owned,
            batch,
            dataset.shape,
            layout,
            preprocessing,
            seed=config.run.seed,
            window_images=window,
            threads=config.data.workers,
        )
    kind = MemoryCachedReader if MemoryCachedReader.fits(dataset.count, dataset.shape) else StepReader
    reader = kind(dataset, order, owned, batch, dataset.shape, layout, preprocessing)
    if not dataset.folder.remote:
        return reader
    ahead = PrefetchingReader(reader, dataset, order, owned, batch, window)
    if preparation.topology.local_rank == 0:
        ahead.warn_if_cache_is_small(start, storage_options(config))
    return ahead
