"""What a run leaves to look at and to use: pictures, evaluations and the trained model. Rank 0 only."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentscale.config import Config
from latentscale.data.decoding import decode
from latentscale.data.shards import ShardedDataset
from latentscale.evaluation.reconstruction import reconstruction_report
from latentscale.inversion.images import from_uint8
from latentscale.inversion.model import TrainedModel
from latentscale.methods.base import Method
from latentscale.training.ema import WeightAverage
from latentscale.training.prepare import Preparation
from latentscale.training.snapshots import write_snapshots


class Outputs:
    """Pictures, evaluations and ``model/`` from the averaged weights.

    Held-out images (a ``test`` split) serve where the data have them, else training images.
    """

    def __init__(
        self,
        config: Config,
        preparation: Preparation,
        method: Method,
        average: WeightAverage,
        snapshots: Path,
        model: Path,
    ) -> None:
        self.config, self.preparation, self.method, self.average = config, preparation, method, average
        self.snapshots, self.model = snapshots, model
        self._reals: Tensor | None = None

    def trained_model(self, step: int) -> TrainedModel:
        """The averaged networks with their scale; its networks are the live averages."""
        method, config = self.method, self.config
        state = method.latent_state()
        generator = self.average.networks["generator"]
        ones = torch.ones(config.latent.dim, device=next(generator.parameters()).device)
        assert self.preparation.dataset is not None
        return TrainedModel(
            generator=generator,
            discriminator=self.average.networks["discriminator"],
            variance=state.get("variance"),
            scale=state.get("scale", ones),
            prior=method.prior,
            shape=self.preparation.shape,
            heads=method.heads(method.spec),
            network=copy.deepcopy(config.network),
            method=method.name,
            uses_dynamic_scale=method.dynamic_scale,
            step=step,
            images_seen=step * self.preparation.plan.batch,
            dataset=self.preparation.dataset.name,
        )

    def snapshot(self, step: int) -> list[Path]:
        """Write the pictures of this step."""
        plan = self.preparation.plan
        return write_snapshots(
            self.trained_model(step),
            from_uint8(self._held_out(self.config.snapshot.images)),
            step,
            step * plan.batch,
            self.snapshots,
            self.config.run.seed,
        )

    def evaluate(self, step: int) -> dict[str, Any]:
        """Latent error on fresh draws and reconstruction of held-out images."""
        limit = self.config.evaluation.images
        report = reconstruction_report(self.trained_model(step), self._held_out(limit), self.config.run.seed, limit)
        held_out = self.preparation.held_out is not self.preparation.dataset
        return {**report, "held_out": int(held_out)}

    def export(self, step: int) -> None:
        """Write ``model/``."""
        self.trained_model(step).save(self.model)

    def _held_out(self, limit: int) -> Tensor:
        """``[n, …]`` uint8 on the CPU, spread evenly over the held-out data."""
        if self._reals is None:
            assert self.preparation.held_out is not None
            self._reals = read_images(self.preparation.held_out, self.config.evaluation.images)
        return self._reals[:limit]


def read_images(dataset: ShardedDataset, limit: int) -> Tensor:
    """At most ``limit`` samples, spread evenly over a data set in the order of its shards, ``[n, C, H, W]`` uint8.

    Data are often sorted by class; the beginning alone would be one of them.
    """
    ends = dataset.shard_counts.cumsum()
    images: list[Tensor] = []
    for position in np.linspace(0, dataset.count - 1, min(limit, dataset.count)).astype(np.int64).tolist():
        shard = int(np.searchsorted(ends, position, side="right"))
        member = position - int(ends[shard] - dataset.shard_counts[shard])
        data, _, _ = dataset.read(shard, member)
        images.append(torch.tensor(decode(data, dataset.shape, dataset.where(shard, member))))
    return torch.stack(images)
