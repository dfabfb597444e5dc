"""The input of a step: real samples and seeded draws of the process's own streams, prepared in advance."""

import math
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentscale.data.loader import Loader
from latentscale.data.step_reader import BlockReader, Preprocessing
from latentscale.data.unreadable_samples import Skipped
from latentscale.errors import UserError
from latentscale.latents.draws import block_uniforms
from latentscale.methods.base import Method
from latentscale.methods.phase import Batch
from latentscale.training.plan import RunPlan
from latentscale.training.readers import shard_reader

MOST_BLOCK_STEPS = 8
MOST_BLOCK_BYTES = 2**20

Made = tuple[Tensor, Tensor | None, dict[str, Tensor]]
"""A step's images, categories (for labelled methods) and draws."""


class Feed:
    """Batches by step; a background thread reads, decodes and draws.

    Args:
        method: declares the draws.
        rank: whose streams are read.
        start: first step, counted from 0.

    Attributes:
        failure: why there are no more data.
        steps_without_data: how many steps were fetched since then.
    """

    def __init__(
        self, plan: RunPlan, method: Method, rank: int, device: torch.device, dtype: torch.dtype, start: int
    ) -> None:
        config, self._steps = plan.config, plan.steps
        self.method, self.device, self.dtype = method, device, dtype
        self.seed = config.run.seed
        self.owned = plan.steps.owned(rank)
        self.penalty_interval_steps = config.method.penalty_interval_steps
        self.layout = plan.steps.layout()
        self.data_name = plan.dataset.name
        self.label_table = torch.from_numpy(plan.dataset.label_table())
        self.loader: Loader[Any] = Loader(
            self._reader(plan, start),
            # streams are read in one process, by threads
            workers=config.data.workers if config.data.mode == "indexed" else 0,
            prefetch_steps=config.data.prefetch_steps,
            start_step=start,
            stop_step=config.training.steps,
            finish=self._finish,
            block_steps=self._block_steps(plan.shape),
        )
        self.failure: UserError | None = None
        self.steps_without_data = 0
        self._newest: Made | None = None

    def __enter__(self) -> "Feed":
        self.loader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loader.close()

    def fetch(self, step: int) -> list[Batch]:
        """The process's micro-batches of a step, on the device, without what `step.prepare_batches` adds to them.

        Once the data fail, `failure` says why, and the last step's batches are returned again, with NaN in place of
        the images: a process that left out the step would keep the others waiting, while a step with a NaN is skipped
        by all and changes nothing.

        Raises:
            UserError: where the first step's data fail; nothing is lost then.
        """
        images, labels, draws = self._next()
        if self.device.type != "cpu":
            images = self._normalise(images.to(self.device, non_blocking=True))
            draws = {name: draw.to(self.device, non_blocking=True) for name, draw in draws.items()}
            labels = None if labels is None else labels.to(self.device, non_blocking=True)
        schedule = self.method.schedule(step, self._steps.stream_batch)
        penalise = step % self.penalty_interval_steps == 0
        size = self._steps.microbatch
        return [
            Batch(
                images[begin : begin + size],
                {name: draw[begin : begin + size] for name, draw in draws.items()},
                self._steps.microbatch_streams,
                penalise,
                None if labels is None else labels[begin : begin + size],
                schedule,
            )
            for begin in range(0, self._steps.process_batch, size)
        ]

    def take_skipped(self) -> list[Skipped]:
        """The samples that could not be read and were replaced in the steps fetched since the last call."""
        skipped, self.loader.skipped = self.loader.skipped, []
        return skipped

    def _next(self) -> Made:
        """The loader's result for the next step; the last one with NaN once the data fail."""
        try:
            if self.failure is None:
                self._newest = next(self.loader)
        except UserError as error:
            if self._newest is None:
                raise
            self.failure = error
            images, labels, draws = self._newest
            images = torch.full(images.shape, torch.nan, dtype=self.dtype)
            priors = [name for name, draw in self.method.draws().items() if draw.quantile is None]
            draws = {**draws, **{name: torch.full_like(draws[name], torch.nan) for name in priors}}
            self._newest = images, labels, draws
        self.steps_without_data += self.failure is not None
        assert self._newest is not None
        return self._newest

    def _reader(self, plan: RunPlan, start: int) -> BlockReader:
        settings = plan.config.data
        preprocessing = Preprocessing(plan.decoder, self.seed, settings.horizontal_flip, settings.on_error == "skip")
        return shard_reader(plan, plan.dataset, self.owned, self.layout, preprocessing, start)

    def _block_steps(self, shape: tuple[int, ...]) -> int:
        """How many steps are read together: several if they are small."""
        numbers = math.prod(shape) + sum(draw.size for draw in self.method.draws().values())
        step_bytes = self._steps.process_batch * numbers * torch.finfo(torch.float64).bits // 8
        return max(1, min(MOST_BLOCK_STEPS, MOST_BLOCK_BYTES // step_bytes))

    def _finish(self, steps: range, images: Tensor, labels: Tensor) -> list[Made]:
        # runs in the loader's thread
        draws = {}
        for name, draw in self.method.draws().items():
            count = self._steps.stream_batch * draw.size
            drawn = block_uniforms(self.seed, draw.purpose, steps, self.owned, count)
            # np.take leaves each step's draws contiguous in memory: strides or offsets that depend on the block would
            # change how a matrix product rounds, and a resumed run cuts other blocks
            rows = torch.from_numpy(np.take(drawn.reshape(len(steps), -1, draw.size), self.layout, axis=1))
            draws[name] = self._pin((draw.quantile or self.method.prior.quantile)(rows).to(self.dtype))
        # uint8 until on the device
        images = self._normalise(images) if self.device.type == "cpu" else self._pin(images)
        if self.method.labelled and bool((labels < 0).any()):
            raise UserError(
                f"{self.data_name} has samples without a label, and {self.method.name} needs one for each: leave them"
                " out, or train with a method that takes no labels"
            )
        categories = self._pin(self.label_table[labels]) if self.method.labelled else None
        return [
            (
                self._own_memory(images[i]),
                None if categories is None else categories[i],
                {name: self._own_memory(draw[i]) for name, draw in draws.items()},
            )
            for i in range(len(steps))
        ]

    def _own_memory(self, step: Tensor) -> Tensor:
        """On the CPU a copy with an alignment of its own; the first step of a block has that already."""
        return step.clone() if self.device.type == "cpu" and step.storage_offset() else step

    def _normalise(self, images: Tensor) -> Tensor:
        """Images from 0 … 255 to [-1, 1]; points stay as they are."""
        if images.is_floating_point():
            return images.to(self.dtype)
        # the decoder left C last in memory, which would change how convolutions round
        return images.contiguous().to(self.dtype).div_(127.5).sub_(1)

    def _pin(self, tensor: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return tensor
        with torch.cuda.device(self.device):  # a thread starts on the first device, whatever the process uses
            return tensor.pin_memory()
