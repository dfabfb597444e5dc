"""The layout of a dataset folder: tar shards, one index per shard, and a dataset.json with their checksums.

    out/dataset.json                      describes the dataset; size and SHA-256 of every file
    out/shard-000000.tar                  000000000.cls 000000000.png 000000001.cls …, for any WebDataset reader;
                                          points are 000000000.npy, float32 vectors
    out/shard-000000.index.safetensors    offset, size, label, extension and CRC-32 of each sample, ``[samples]``

With the index, reading a sample takes one ``pread`` and can start anywhere in a shard. Datasets of version 1 have no
CRC-32 and are read without this check.
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
    """One shard's entry in dataset.json; sizes in bytes, checksums are SHA-256 in hexadecimal."""

    file: str
    index: str
    count: int
    bytes: int
    sha256: str
    index_sha256: str


@dataclass
class ShardIndex:
    """Offset and size in bytes, label (−1 if unlabelled), extension number and CRC-32 of each sample, ``[samples]``."""

    offset: Any = field(default_factory=list)
    size: Any = field(default_factory=list)
    label: Any = field(default_factory=list)
    extension: Any = field(default_factory=list)
    crc32: Any = field(default_factory=list)


INDEX_TYPES = {"offset": np.int64, "size": np.int32, "label": np.int32, "extension": np.uint8, "crc32": np.uint32}
SINCE_VERSION_2 = frozenset(("crc32",))


def is_shard_file(name: str) -> bool:
    """Return whether a file name is that of a shard or of a shard's index."""
    return name.startswith("shard-") and name.endswith((".tar", ".index.safetensors"))


def is_complete_index(found: Collection[str]) -> bool:
    """Return whether arrays with these names form an index of a known version."""
    return set(INDEX_TYPES) - SINCE_VERSION_2 <= set(found) <= set(INDEX_TYPES)


def index_bytes(index: ShardIndex) -> int:
    """Return the memory that an index takes, in bytes."""
    return sum(array.nbytes for name in INDEX_TYPES if (array := getattr(index, name)) is not None)
