"""Trains small runs under every engine, one after the other; started by a launcher on any number of processes.

``deepspeed_runs.py FOLDER NAME TASK…``. Each start first trains FOLDER/launched-NAME as its launcher says, then does
its tasks: a process group is one for all runs.
"""

import copy
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch.distributed as dist
from every_method import NEEDS
from omegaconf import OmegaConf
from torch import Tensor

from latentscale.config import Config, load_config
from latentscale.distributed import deepspeed as adapter
from latentscale.distributed.deepspeed_settings import launcher_settings
from latentscale.distributed.engines import make_accelerator
from latentscale.distributed.exiting import exit_process
from latentscale.distributed.phases import DistributedPhase
from latentscale.errors import UserError
from latentscale.losses import inversion
from latentscale.methods import pvdgan
from latentscale.methods.registry import METHODS
from latentscale.training import consensus, model_outputs
from latentscale.training.loop import train
from launching import ROOT, overrides

ENGINES: dict[str, dict[str, object]] = {
    "ddp": {"distributed__engine": "ddp"},
    **{f"zero{stage}": {"distributed__engine": "deepspeed", "distributed__zero": stage} for stage in (0, 1, 2)},
}
PARTITIONED = ("zero1", "zero2")
OFFLOADED = {f"{name}_offload": {**ENGINES[name], "distributed__offload_optimizer": True} for name in PARTITIONED}
ALL: dict[str, dict[str, object]] = ENGINES | OFFLOADED
EQUAL = ("pvdgan", "cgpgan", "invgan", "elastic_infogan")
STEPS = 5
COUNTED_STEPS = 3
# runs that are saved, continued under another engine, and compared after one more step
MOVED, SAVED_STEPS = "elastic_infogan", 2
# without convolutions: the float32 sums of their biases differ by 1e-5 between numbers of processes, also under DDP;
# P(C) is frozen in the first step: its group takes fewer steps than the others
MOVED_SETTINGS: dict[str, object] = {"network__family": "mlp", "method__prior_start_step": 1}
COUNTS = (1, 2, 4)
COUNT = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))


@cache
def settings(method: str) -> Config:
    """A method's small run in float32."""
    kind = METHODS[method]
    categories = {"latent__categories": "[3,4]"} if kind.categorical and not kind.categories_optional else {}
    own = {"training__precision": "fp32", "snapshot__images": 2, "evaluation__images": 2, **categories}
    return load_config(kind.Settings, method, {}, overrides(**own, **NEEDS.get(method, {})))


def run(folder: Path, steps: int, method: str, engine: str, **changes: object) -> None:
    config = copy.deepcopy(settings(method))
    # set one by one: parsing a command line for each of these hundreds of runs would take longer than their steps
    for key, value in {"run__dir": str(folder), "training__steps": steps, **ALL[engine], **changes}.items():
        section, _, name = key.partition("__")
        assert type(getattr(getattr(config, section), name)) is type(value)
        setattr(getattr(config, section), name, value)
    # most of such a short run's time is spent on its pictures, of which nothing is compared, and on the types of its
    # configuration, which was read before; the runs that are `launched` take the whole way
    with (
        replaced(model_outputs, "write_snapshots", lambda *arguments: []),
        replaced(OmegaConf, "structured", lambda config: OmegaConf.create(asdict(config))),
    ):
        train(config, METHODS[method])


def launched(folder: Path, said: Mapping[str, str]) -> None:
    """Two steps with the launcher's settings, by the number of processes that it was to start."""
    own = overrides(training__precision="fp32", training__steps=2, run__dir=folder, distributed__processes=COUNT)
    kind = METHODS["pvdgan"]
    train(load_config(kind.Settings, kind.name, {}, own, launched=launcher_settings(said)), kind)


def equal(folder: Path) -> None:
    """Every engine takes the same steps, in all variants."""
    for method in EQUAL:
        for engine in ENGINES:
            run(folder / f"{method}-{engine}", STEPS, method, engine)
    for engine in OFFLOADED:
        run(folder / f"{MOVED}-{engine}", STEPS, MOVED, engine)
    for engine in ("ddp", *PARTITIONED, *OFFLOADED):
        run(folder / f"accumulated-{engine}", STEPS, MOVED, engine, training__accumulation=2)
    for engine in ("ddp", "zero0", "zero2"):
        run(folder / f"bf16-{engine}", STEPS, "pvdgan", engine, training__precision="bf16")
        # an epoch of 1,500 digits is 2.34 steps
        decay = {"training__batch": 640, "distributed__streams": 8, "optimizer__epoch_decay": 0.5}
        run(folder / f"decay-{engine}", 4, "vanilla", engine, **decay)
    for engine in ("ddp", "zero0", "zero1", "zero2_offload"):
        run(folder / f"clipped-{engine}", 4, "pvdgan", engine, optimizer__gradient_clipping=0.01)
    for engine in PARTITIONED:
        with replaced(adapter, "BUCKET_ELEMENTS", 40):  # most gradients are larger than that, and some are not
            run(folder / f"buckets-{engine}", STEPS, MOVED, engine)


def compiled(folder: Path) -> None:
    for engine in ("ddp", "zero2"):
        run(folder / f"compiled-{engine}", STEPS, "vanilla", engine, training__compile="aot_eager")


def broken(folder: Path) -> None:
    """Gradients that are not reduced."""
    from deepspeed.runtime.engine import DeepSpeedEngine
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    with (
        replaced(DeepSpeedEngine, "allreduce_bucket", lambda self, bucket, *rest: self.flatten(bucket)),
        replaced(DeepSpeedZeroOptimizer, "average_tensor", lambda *arguments: None),
        # processes that drift apart would not reach the end
        replaced(consensus, "refuse_divergence", lambda *arguments: None),
    ):
        for engine in ("zero0", *PARTITIONED):
            run(folder / f"broken-{engine}", STEPS, "pvdgan", engine)


def poisoned(folder: Path) -> None:
    """The second step has a NaN on one process, and is skipped."""
    calls: list[int] = []

    def with_nan(*arguments: Any) -> Any:
        calls.append(1)  # one in each phase of a step: the third is in the second step's discriminator phase
        value = inversion.scaled_latent_mse(*arguments)
        return value * float("nan") if RANK == 1 and len(calls) == 3 else value

    for engine in ALL:
        run(folder / f"clean-{engine}", 1, "pvdgan", engine)
        calls.clear()
        with replaced(pvdgan, "scaled_latent_mse", with_nan):
            run(folder / f"poisoned-{engine}", 2, "pvdgan", engine)


def refused(folder: Path) -> None:
    """Heads that no loss depends on."""
    heads = METHODS["infogan"].heads
    for engine in ENGINES:
        with replaced(METHODS["msegan"], "heads", classmethod(lambda cls, spec: heads(spec))):
            try:
                run(folder / f"untrained-{engine}", 1, "msegan", engine)
            except UserError as error:
                if RANK == 0:
                    (folder / f"untrained-{engine}.txt").write_text(str(error))


def files(folder: Path) -> None:
    """The settings of each of our DeepSpeed files."""
    for file in sorted((ROOT / "launchers" / "deepspeed").glob("*.json")):
        said = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}
        launched(folder / f"file-{file.stem}", said)


def counted(folder: Path) -> None:
    """The elements of every all-reduce of three steps."""
    whole = dist.all_reduce
    for engine in ("zero0", *PARTITIONED):
        for accumulation in (1, 2):
            found: list[int] = []

            def counting(tensor: Tensor, *rest: Any, found: list[int] = found, **options: Any) -> Any:
                found.append(tensor.numel())
                return whole(tensor, *rest, **options)

            name = f"counted-{engine}-{accumulation}"
            with replaced(dist, "all_reduce", counting):
                run(folder / name, COUNTED_STEPS, "pvdgan", engine, training__accumulation=accumulation)
            if RANK == 0:
                (folder / f"{name}.json").write_text(json.dumps(found))


def save(folder: Path) -> None:
    for engine in ENGINES:
        run(folder / f"{COUNT}-{engine}", SAVED_STEPS, MOVED, engine, **MOVED_SETTINGS)


def reference(folder: Path) -> None:
    """One process under DDP that never stopped."""
    run(folder / "reference", SAVED_STEPS + 1, MOVED, "ddp", **MOVED_SETTINGS)


def proceed(source: Path, target: Path, engine: str) -> None:
    """One more step from a copy of a run."""
    if RANK == 0:
        shutil.copytree(source, target)
    run(target, SAVED_STEPS + 1, MOVED, engine, **MOVED_SETTINGS)


def load(folder: Path) -> None:
    for engine in ENGINES:
        for count in COUNTS:
            for writer in ENGINES:
                proceed(folder / f"{count}-{writer}", folder / f"{COUNT}-{engine}-from-{count}-{writer}", engine)


def forgetful(folder: Path) -> None:
    """Moments, or weights, that are not loaded."""
    for engine in ENGINES:
        kind = adapter.PartitionedPhase if engine in PARTITIONED else DistributedPhase
        whole: Callable[[Any, Any], None] = kind.load_moments
        with replaced(kind, "load_moments", lambda self, moments, whole=whole: whole(self, {})):
            proceed(folder / "1-ddp", folder / f"forgetful-{engine}", engine)


TASKS = {
    task.__name__: task
    for task in (equal, compiled, broken, poisoned, refused, counted, files, save, reference, load, forgetful)
}  # fmt: skip


@contextmanager
def replaced(where: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(where, name)
    setattr(where, name, value)
    try:
        yield
    finally:
        setattr(where, name, before)


def main() -> None:
    folder, name, tasks = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    said = dict(os.environ)
    accelerator = make_accelerator(timeout_seconds=300)  # one process group for all runs
    launched(folder / f"launched-{name}", said)
    for task in tasks:
        TASKS[task](folder)
    accelerator.end_training()
    exit_process()


if __name__ == "__main__":
    main()
