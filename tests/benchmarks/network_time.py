"""The time that gradients take over a network: formulas of ring, tree and two-level all-reduce.

Bytes are of one process's gradients, seconds are of one all-reduce, bandwidths are what one process may send in a
second, one direction.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """The connection of a process to the next.

    Attributes:
        bytes_per_second: that one process can send, one direction.
        latency_seconds: of one message.
    """

    bytes_per_second: float
    latency_seconds: float = 0.0


def ring_bytes(processes: int, size_bytes: float) -> float:
    """Bytes that each process sends in a ring all-reduce: 2 (N − 1)/N of the buffer."""
    return 2 * (processes - 1) / processes * size_bytes


def ring_seconds(processes: int, size_bytes: float, link: Link) -> float:
    """2 (N − 1)/N · bytes / bandwidth + 2 (N − 1) · latency: a reduce-scatter and an all-gather of N − 1 hops each."""
    return ring_bytes(processes, size_bytes) / link.bytes_per_second + 2 * (processes - 1) * link.latency_seconds


def tree_seconds(processes: int, size_bytes: float, link: Link) -> float:
    """The same bytes, but 2 ⌈log₂ N⌉ hops: two trees, each for half of the buffer, up and down."""
    hops = 2 * math.ceil(math.log2(processes))
    return ring_bytes(processes, size_bytes) / link.bytes_per_second + hops * link.latency_seconds


def two_level_seconds(processes: int, per_node: int, size_bytes: float, inside: Link, between: Link) -> float:
    """Reduce-scatter within each node, all-reduce of each process's share between nodes, all-gather within.

    Within a node a ring, between nodes a tree; every process has a link of its own between nodes. N ≤ per_node is the
    ring of one node.

    Raises:
        ValueError: nodes that are not full.
    """
    if processes <= per_node:
        return ring_seconds(processes, size_bytes, inside)
    if processes % per_node:
        raise ValueError(f"{processes} processes do not fill nodes of {per_node}")
    within = ring_seconds(per_node, size_bytes, inside)
    return within + tree_seconds(processes // per_node, size_bytes / per_node, between)


# DistributedDataParallel's own: the first bucket is small, so that something is on its way early
FIRST_BUCKET_BYTES = 2**20
BUCKET_BYTES = 25 * 2**20


def buckets(sizes_bytes: Sequence[int]) -> list[int]:
    """Bytes of each bucket that DistributedDataParallel sends, in the order of sending.

    Args:
        sizes_bytes: of each parameter's gradient, in the order in which backward makes them: the last layer's first.
    """
    found, filling, limit = [], 0, FIRST_BUCKET_BYTES
    for size in sizes_bytes:
        filling += size
        if filling >= limit:
            found.append(filling)
            filling, limit = 0, BUCKET_BYTES
    return [*found, filling] if filling else found


def exposed_seconds(sizes: Sequence[int], backward_seconds: float, seconds_of: Callable[[int], float]) -> float:
    """The time of the buckets' all-reduces that remains after backward.

    Buckets are sent one after the other, each when backward has filled it, which takes its share of the bytes in
    time.

    Args:
        sizes: bytes of each bucket, in the order of sending.
        seconds_of: how long the all-reduce of so many bytes takes.
    """
    filled = sent_at = 0.0
    for size in sizes:
        filled += size
        sent_at = max(sent_at, backward_seconds * filled / sum(sizes)) + seconds_of(size)
    return max(0.0, sent_at - backward_seconds)
