"""Which reader feeds a run from shards: by index or streaming, local or prefetched, cached in memory or not."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentscale.config import Config
from latentscale.data.datasets import default_shard_cache
from latentscale.data.fetching_ahead import AheadReader
from latentscale.data.reading import BlockReader, StepReader, Treatment
from latentscale.data.remembering import RememberingReader
from latentscale.data.shards import ShardedDataset
from latentscale.data.storage import StorageOptions
from latentscale.data.streaming import StreamingReader
from latentscale.training.plan import RunPlan


def shard_reader(
    plan: RunPlan,
    dataset: ShardedDataset,
    owned: range,
    layout: NDArray[np.int64],
    treatment: Treatment,
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
            treatment,
            seed=config.run.seed,
            window_images=window,
            threads=config.data.workers,
        )
    kind = RememberingReader if RememberingReader.fits(dataset.count, dataset.shape) else StepReader
    reader = kind(dataset, order, owned, batch, dataset.shape, layout, treatment)
    if not dataset.folder.remote:
        return reader
    ahead = AheadReader(reader, dataset, order, owned, batch, window)
    if plan.topology.local_rank == 0:
        ahead.warn_if_small(start, storage_options(config))
    return ahead


def storage_options(config: Config) -> StorageOptions:
    """How files behind URLs are fetched and kept."""
    data = config.data
    folder = Path(data.cache_folder) if data.cache_folder else default_shard_cache()
    return StorageOptions(
        folder.absolute(), data.cache_bytes, data.retry_seconds, data.stall_seconds, data.on_error == "skip"
    )
