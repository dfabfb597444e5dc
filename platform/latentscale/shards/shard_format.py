"""What a dataset folder holds: tar shards, an index beside each, and a dataset.json with their checksums.

    out/dataset.json                      what the dataset is, and the size and SHA-256 of every file
    out/shard-000000.tar                  000000000.cls 000000000.png 000000001.cls …, for any WebDataset reader;
                                          of points 000000000.npy, float32 vectors
    out/shard-000000.index.safetensors    offset, size, label, extension and CRC-32 of each image, ``[samples]``

The index makes a sample one ``pread``, so that reading may start at any position of any shard. Datasets of version 1
have no CRC-32, and are read as they are.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FORMAT = "latentscale-shards"
VERSION = 2
NO_LABEL = -1
TAR_BLOCK_BYTES = 512


@dataclass(frozen=True)
class ShardEntry:
    """What dataset.json says of one shard; sizes in bytes, checksums SHA-256 in hexadecimal."""

    file: str
    index: str
    count: int
    bytes: int
    sha256: str
    index_sha256: str


@dataclass
class ShardIndex:
    """Offset and size in bytes, label (−1 without), extension number and CRC-32 of each image, ``[samples]`` each."""

    offset: Any = field(default_factory=list)
    size: Any = field(default_factory=list)
    label: Any = field(default_factory=list)
    extension: Any = field(default_factory=list)
    crc32: Any = field(default_factory=list)


INDEX_TYPES = {"offset": np.int64, "size": np.int32, "label": np.int32, "extension": np.uint8, "crc32": np.uint32}
SINCE_VERSION_2 = frozenset(("crc32",))


def is_shard_file(name: str) -> bool:
    """Whether a file's name is that of a shard or of its index."""
    return name.startswith("shard-") and name.endswith((".tar", ".index.safetensors"))


def is_complete_index(found: Collection[str]) -> bool:
    """Whether arrays of these names are an index of some version."""
    return set(INDEX_TYPES) - SINCE_VERSION_2 <= set(found) <= set(INDEX_TYPES)


def index_bytes(index: ShardIndex) -> int:
    """What the arrays of an index take in memory, in bytes."""
    return sum(array.nbytes for name in INDEX_TYPES if (array := getattr(index, name)) is not None)
