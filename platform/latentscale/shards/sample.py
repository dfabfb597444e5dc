"""One sample to be written into a shard."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_SHARD_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Sample:
    """One image or point to be written into a shard.

    Attributes:
        image: the encoded file, stored unchanged.
        extension: the file's extension without the dot, e.g. ``png``; ``npy`` for points.
        label: index into the dataset's labels, None if unlabelled.
        origin: where the sample comes from, such as file name and patch position, stored as a JSON member;
            None writes no such member.
    """

    image: bytes
    extension: str
    label: int | None = None
    origin: Mapping[str, Any] | None = None
