"""What a run leaves to look at and to use: pictures, evaluations and the trained model. Rank 0 only."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentscale.config import Config
from latentscale.decoding.decoder import Decoder
from latentscale.decoding.sample_arrays import decode
from latentscale.errors import UserError
from latentscale.evaluation.evaluate import evaluate
from latentscale.inversion.images import from_uint8
from latentscale.inversion.model import TrainedModel
from latentscale.methods.base import Method
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.training.ema import WeightAverage
from latentscale.training.prepare import Preparation
from latentscale.training.snapshots import write_snapshots

SHOWN_POINTS = 1000


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

    def trained_model(self, step: int, copies: bool = False) -> TrainedModel:
        """The method around the averaged networks, with a copy of the statistics.

        Args:
            copies: of the networks too, to be used while the training goes on.
        """
        preparation = self.preparation
        assert preparation.dataset is not None
        method = self.method
        networks = copy.deepcopy(self.average.networks) if copies else self.average.networks
        averaged = type(method)(method.settings, networks, method.prior, method.spec)
        for name, statistic in method.statistics.items():
            assert isinstance(statistic, nn.Module)
            copied = averaged.statistics[name] = copy.deepcopy(statistic)
            # a method keeps its statistics as attributes too
            for attribute, value in vars(method).items():
                if value is statistic:
                    setattr(averaged, attribute, copied)
        return TrainedModel(
            averaged,
            copy.deepcopy(self.config.network),
            step,
            step * preparation.plan.batch,
            preparation.dataset.name,
        )

    def snapshot(self, model: TrainedModel) -> list[Path]:
        """Write the pictures of a model's step."""
        return write_snapshots(
            model,
            self._floats(self.config.snapshot.images if len(self.preparation.shape) == 3 else SHOWN_POINTS),
            model.step,
            model.images_seen,
            self.snapshots,
            self.config.run.seed,
        )

    def evaluate(self, model: TrainedModel) -> dict[str, Any]:
        """Every metric that applies, on fresh draws and on held-out samples."""
        limit = self.config.evaluation.images
        report = evaluate(model, self._held_out(limit), self.config.run.seed, limit, labels=self._labels)
        held_out = self.preparation.held_out is not self.preparation.dataset
        return {**report, "held_out": int(held_out)}

    def _labels(self) -> Tensor | None:
        """``[n, d_l]`` categories of the held-out samples that are measured on; None where they are not known."""
        limit, held_out = self.config.evaluation.images, self.preparation.held_out
        assert held_out is not None
        labels = read_labels(held_out, limit) if held_out.labels else None
        # samples that cannot be read are left out, but their labels are not: then nothing says whose is whose
        return labels if labels is not None and len(labels) == len(self._held_out(limit)) else None

    def _floats(self, limit: int) -> Tensor:
        """Held-out samples as the networks take them."""
        held_out = self._held_out(limit)
        return held_out if held_out.is_floating_point() else from_uint8(held_out)

    def export(self, model: TrainedModel) -> None:
        """Write ``model/``."""
        model.save(self.model)

    def _held_out(self, limit: int) -> Tensor:
        """``[n, …]`` on the CPU, spread evenly over the held-out data: images uint8, points float32."""
        if self._reals is None:
            assert self.preparation.held_out is not None
            limit = max(self.config.evaluation.images, SHOWN_POINTS if len(self.preparation.shape) == 1 else 0)
            skip_errors = self.config.data.on_error == "skip"
            self._reals = read_samples(self.preparation.held_out, limit, self.preparation.decoder, skip_errors)
        return self._reals[:limit]


def read_labels(dataset: ShardedDataset, count: int) -> Tensor:
    """``[count, d_l]`` int64 categories of the samples that `read_samples` gives."""
    places = spread(dataset, count)
    stored = np.array([int(dataset.shard_labels(shard)[member]) for shard, member in places])
    return torch.from_numpy(dataset.label_table()[stored])


def read_samples(
    dataset: ShardedDataset, limit: int, decoder: Decoder | None = None, skip_errors: bool = False
) -> Tensor:
    """At most ``limit`` samples of a dataset in the order of its shards, see `spread`.

    Returns:
        uint8 ``[n, C, H, W]``, or of points float32 ``[n, D]``.

    Args:
        decoder: ``auto`` without one.
        skip_errors: leave out what cannot be read, as long as two samples are left.

    Raises:
        UserError: naming what cannot be read.
    """
    images: list[Tensor] = []
    refusal: UserError | None = None
    for place, data in _readable(dataset, spread(dataset, limit), skip_errors):
        try:
            images.append(torch.tensor(decode(data, dataset.shape, dataset.location(*place), decoder)))
        except UserError as error:
            if not skip_errors:
                raise
            refusal = error
    if len(images) < min(2, limit, dataset.count):
        raise refusal or UserError(f"{dataset.path} cannot be read where images to measure on were looked for: mend it")
    return torch.stack(images)


def _readable(
    dataset: ShardedDataset, places: Sequence[tuple[int, int]], skip_errors: bool
) -> Iterator[tuple[tuple[int, int], bytes]]:
    """The files at some (shard, member); without those that cannot be read where that may be."""
    if not skip_errors or dataset.folder.remote:
        for place, (data, _, _) in zip(places, dataset.read_sparse(places), strict=True):
            yield place, data
        return
    for place in places:
        try:
            data, _, _ = dataset.read(*place)
        except UserError:
            continue
        yield place, data


def spread(dataset: ShardedDataset, limit: int) -> list[tuple[int, int]]:
    """The shard and member of at most ``limit`` samples: the first of independent draws, else spread evenly.

    Images are often sorted by class, and the first ones would all be of one class.
    """
    ends = dataset.shard_counts.cumsum()
    count = min(limit, dataset.count)
    positions = np.arange(count) if dataset.independent else np.linspace(0, dataset.count - 1, count).astype(np.int64)
    shards = np.searchsorted(ends, positions, side="right")
    members = positions - (ends[shards] - dataset.shard_counts[shards])
    return list(zip(shards.tolist(), members.tolist(), strict=True))
