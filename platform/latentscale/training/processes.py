"""The processes of a run: all are checked and joined before any of them trains, and are released at the end."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch.distributed as dist

from latentscale.config import Config
from latentscale.data.worker_pool import start_fork_server
from latentscale.distributed.agreement import require_agreement
from latentscale.distributed.engines import make_accelerator
from latentscale.distributed.exiting import exit_interrupted
from latentscale.distributed.heartbeat import HeartbeatMonitor, lost_contact
from latentscale.distributed.process_group import join_process_group, keep_until_next_end
from latentscale.distributed.topology import Topology, uses_gpu
from latentscale.errors import UserError
from latentscale.methods.base import Method
from latentscale.training.checks import plan_run
from latentscale.training.memory import keep_freed_memory
from latentscale.training.plan import RunPlan


class Processes(NamedTuple):
    """What each process has once all have joined.

    Attributes:
        accelerator: Accelerate's, which holds this process's device.
        monitor: sends this process's heartbeats and notices processes that have died.
    """

    plan: RunPlan
    accelerator: Any
    monitor: HeartbeatMonitor


@contextmanager
def join_processes(config: Config, method: type[Method]) -> Iterator[Processes]:
    """Check the run on every process, join all processes, and leave the group at the end.

    Raises:
        UserError: on every process, if a check fails on any, or if their configurations or data differ.
        Interruption: if another process did not come, or died while the group stood.
    """
    plan = _plan_or_refusal(config, method)
    if isinstance(plan, UserError) and Topology.processes_launched() == 1:
        raise plan
    # before the process has threads and a process group
    if config.data.workers:
        start_fork_server()
    if not uses_gpu():
        keep_freed_memory()
    limits, topology = config.distributed, Topology.from_environment()
    # a process group that a caller has made outlives the run
    ours = not dist.is_initialized()
    monitor = HeartbeatMonitor(topology.rank, limits.heartbeat_seconds, limits.timeout_seconds, exit_interrupted)
    try:
        with ExitStack() as afterwards:
            join_process_group(topology, limits.startup_timeout_seconds)
            accelerator = make_accelerator(
                limits.startup_timeout_seconds,
                log_with="tensorboard" if config.telemetry.tensorboard else None,
                project_dir=config.run.dir,
            )
            afterwards.callback(_end_training, accelerator, ours)
            afterwards.enter_context(monitor)
            if isinstance(plan, UserError):
                require_agreement({}, plan)
                raise plan
            require_agreement({"configuration": config.to_yaml(), **plan.identity()}, None)
            yield Processes(plan, accelerator, monitor)
    except RuntimeError as error:
        if not lost_contact(error):
            raise
        raise monitor.interruption(error) from error


def _plan_or_refusal(config: Config, method: type[Method]) -> RunPlan | UserError:
    try:
        return plan_run(config, method)
    except UserError as error:
        return error


def _end_training(accelerator: Any, end_processes: bool) -> None:
    if end_processes:
        keep_until_next_end()
        accelerator.end_training()
    else:
        for tracker in accelerator.trackers:
            tracker.finish()
