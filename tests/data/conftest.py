"""Real shards of small numbered images."""

from collections.abc import Callable
from pathlib import Path

import pytest
from numbered_images import LABELS, SHAPE, numbered_samples

from latentscale.data.shard_writing import write_shards
from latentscale.data.shards import ShardedDataset


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], ShardedDataset]:
    """Opens (count, samples a shard), written once a session; the last shard holds what is left."""
    opened: dict[tuple[int, int], ShardedDataset] = {}

    def dataset(count: int, per_shard: int) -> ShardedDataset:
        if (count, per_shard) not in opened:
            out: Path = tmp_path_factory.mktemp("numbered") / "data"
            write_shards(numbered_samples(count), out, "numbered", SHAPE, LABELS, "CC0", shard_bytes=per_shard * 2048)
            opened[count, per_shard] = ShardedDataset.open(out)
        return opened[count, per_shard]

    return dataset
