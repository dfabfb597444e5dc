"""Gaussian clusters in the plane, generated: the toy data of T figs. 1 and 38-42.

Four clusters N((−1, 1)), N((0, −2)), N((1, −1)) and N((2, 1)) of deviation 0.3 with probabilities 0.1, 0.2, 0.3, 0.4.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentscale.data.order import Order
from latentscale.data.step_reader import Block
from latentscale.sources.cluster_law import COUNTS, ClusterLaw

LAW = ClusterLaw()
CENTRES = np.array(LAW.means)
PROBABILITIES = np.array(LAW.probabilities)
DEVIATION = LAW.deviation
SHARD_POINTS = 2**12


class Clusters:
    """A split of the clusters, held in memory; offers what a ``ShardedDataset`` does, as far as points can.

    Attributes:
        points: ``[N, 2]`` float32.
        classes: ``[N]`` int64, the cluster of each.
    """

    name = "clusters"
    path = "clusters"
    shape = (2,)
    licence = "generated"

    def __init__(self, split: str = "train") -> None:
        self.count = COUNTS[split]
        self.points, self.classes = LAW.draw(0, list(COUNTS).index(split), self.count)
        self.labels = LAW.names
        self.label_sizes = (len(CENTRES),)
        self.shard_counts = np.full(self.count // SHARD_POINTS, SHARD_POINTS, dtype=np.int64)
        self.fingerprint = hashlib.sha256(self.points.tobytes()).hexdigest()

    def shard_labels(self, shard: int) -> NDArray[np.int64]:
        """The cluster of each point of a shard, ``[points]``."""
        return self.classes[shard * SHARD_POINTS :][:SHARD_POINTS]

    def label_table(self) -> NDArray[np.int64]:
        """``[labels, 1]``: a stored label is its category."""
        return np.arange(len(CENTRES), dtype=np.int64)[:, None]


class PointReader:
    """Reads a step's points: a pure function of the step, like a ``StepReader``.

    Args:
        dataset: the points.
        order: where they stand.
        owned_streams, stream_batch, layout: as a ``StepReader``'s.
    """

    def __init__(
        self, dataset: Clusters, order: Order, owned_streams: range, stream_batch: int, layout: NDArray[np.int64]
    ) -> None:
        self._dataset, self._order, self._layout = dataset, order, layout
        self._owned_streams, self._stream_batch = owned_streams, stream_batch

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Points ``[streams·b, 2]`` float32 and labels ``[streams·b]`` int64."""
        points, labels, _ = self.block(range(step, step + 1))
        return points[0], labels[0]

    def block(self, steps: range) -> Block:
        """What several steps hold."""
        shards, members = self._order.locate_steps(self._owned_streams, steps, self._stream_batch)
        chosen = np.take(shards * SHARD_POINTS + members, self._layout, axis=1)
        return Block(torch.from_numpy(self._dataset.points[chosen]), torch.from_numpy(self._dataset.classes[chosen]))
