"""A sample on its way into a shard."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_SHARD_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Sample:
    """One image, or one point, as it goes into a shard.

    Attributes:
        image: the encoded file, kept as it is.
        extension: of the file, without the dot, e.g. ``png``; ``npy`` of a point.
        label: index into the dataset's labels, None without one.
        origin: where the image comes from, such as the file's name and a patch's position; it becomes a JSON
            member beside the image, None leaves it out.
    """

    image: bytes
    extension: str
    label: int | None = None
    origin: Mapping[str, Any] | None = None
