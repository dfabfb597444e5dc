"""Which reader feeds a run from shards: by index or streaming, local or prefetched, cached in memory or not."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentscale.config import Config
from latentscale.data.memory_cache import MemoryCachedReader
from latentscale.data.prefetching import PrefetchingReader
from latentscale.data.step_reader import BlockReader, Preprocessing, StepReader
from latentscale.data.streaming import StreamingReader
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.dataset_files import StorageOptions
from latentscale.storage.user_cache import default_shard_cache
from latentscale.training.plan import RunPlan


def shard_reader(
    plan: RunPlan,
    dataset: ShardedDataset,
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
    config, order, batch = plan.config, plan.order, plan.steps.stream_batch
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
    prefetching = PrefetchingReader(reader, dataset, order, owned, batch, window)
    if plan.topology.local_rank == 0:
        prefetching.warn_if_cache_is_small(start, storage_options(config))
    return prefetching


def storage_options(config: Config) -> StorageOptions:
    """How files behind URLs are fetched and kept."""
    data = config.data
    folder = Path(data.cache_folder) if data.cache_folder else default_shard_cache()
    return StorageOptions(
        folder.absolute(), data.cache_bytes, data.retry_seconds, data.stall_seconds, data.on_error == "skip"
    )
