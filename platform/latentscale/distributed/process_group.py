"""Joining the process group: each process registers in the store, so that a missing one can be named."""

import os
import time
from collections import deque
from datetime import timedelta

import torch
import torch.distributed as dist

from latentscale.distributed.topology import Topology, prefer_loopback, uses_gpu
from latentscale.environment import integer_from_environment
from latentscale.errors import Interruption, UserError

_POLL_SECONDS = 0.1
_SHOWN_RANKS = 16


def join_process_group(topology: Topology, timeout_seconds: float) -> None:
    """Create the process group once all processes have joined; does nothing if it exists, or for one process.

    Until `set_collective_timeout` its collectives use the same timeout: before the first step ends, each process opens
    the data, reads a checkpoint and compiles the networks at its own speed.

    Args:
        timeout_seconds: ``distributed.startup_timeout_seconds``.

    Raises:
        Interruption: ranks did not join, or rank 0 cannot be reached; names them.
        UserError: there are more processes than GPUs.
    """
    if topology.processes == 1 or dist.is_initialized():
        return
    prefer_loopback()
    gpu = uses_gpu()
    if gpu and topology.local_rank >= (count := torch.cuda.device_count()):
        raise UserError(
            f"process {topology.local_rank} of this machine has no GPU of its own, since the machine has {count}: start"
            " one process per GPU (accelerate's --num_processes counts all machines, the node launcher's"
            " --processes-per-node one)"
        )
    timeout, began = timedelta(seconds=timeout_seconds), time.monotonic()
    address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        # torchelastic's store survives a restart of the workers: keys from before it must not count
        store = dist.PrefixStore(
            f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", _store(topology, timeout)
        )
        joined = dist.PrefixStore("latentscale-joined", store)
        joined.set(str(topology.rank), "1")
        joined.add("count", 1)
        processes = topology.processes
        while joined.add("count", 0) < processes:
            # the store may end with rank 0, and the others must find the missing ranks themselves
            if time.monotonic() - began > timeout_seconds + (topology.rank == 0):
                missing = [rank for rank in range(processes) if not joined.check([str(rank)])]
                raise _missing(missing, processes, timeout_seconds)
            time.sleep(_POLL_SECONDS)
        if gpu:
            torch.cuda.set_device(topology.local_rank)
            # torch's own watchdog would abort the process with a page of stack frames before the failed rank is known;
            # `HeartbeatMonitor` ends the process instead
            os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "0"
        dist.init_process_group(
            "nccl" if gpu else "gloo", store=store, rank=topology.rank, world_size=processes, timeout=timeout
        )
    except UserError:
        raise
    except (dist.DistError, RuntimeError) as error:
        raise Interruption(
            f"rank {topology.rank} could not join the process group at {address} within"
            f" distributed.startup_timeout_seconds={timeout_seconds:g} ({str(error).splitlines()[0]}): check that"
            " rank 0 runs there and that its port is open"
        ) from None


def set_collective_timeout(timeout_seconds: float) -> None:
    """Set the timeout of collectives from now on."""
    if dist.is_initialized():
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_seconds))


def _store(topology: Topology, timeout: timedelta) -> dist.Store:
    """The key-value store at MASTER_ADDR, torchrun's or rank 0's, as with ``env://``, but without waiting."""
    elastic = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    host, port = os.environ.get("MASTER_ADDR", ""), integer_from_environment("MASTER_PORT", 0, maximum=65_535)
    if not host or not port:
        raise UserError(
            f"WORLD_SIZE={topology.processes} without MASTER_ADDR and MASTER_PORT: use accelerate launch or torchrun"
        )
    return dist.TCPStore(
        host,
        port,
        is_master=topology.rank == 0 and not elastic,
        timeout=timeout,
        wait_for_workers=False,
        multi_tenant=True,
    )


def _missing(ranks: list[int], processes: int, timeout_seconds: float) -> Interruption:
    shown = ", ".join(map(str, ranks[:_SHOWN_RANKS])) + (" …" if len(ranks) > _SHOWN_RANKS else "")
    return Interruption(
        f"{len(ranks)} of {processes} processes did not join within distributed.startup_timeout_seconds="
        f"{timeout_seconds:g}: rank{'s' if len(ranks) > 1 else ''} {shown}; check why their launcher did not start them"
    )


_ended_groups: deque[object] = deque(maxlen=1)


def keep_until_next_end() -> None:
    """Keep the process group from being freed until the next one ends; to be called before it is left.

    Gloo joins its threads when its group is freed, and holds the GIL meanwhile. A thread that still frees the tensors
    of the last collective waits for the GIL: the process would hang after its training. By the time the next group
    ends, the threads of this one have long been idle.
    """
    if dist.is_initialized():
        _ended_groups.append(dist.group.WORLD)
