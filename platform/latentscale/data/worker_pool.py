"""Worker processes: torch's DataLoader over step numbers, with errors and crashes reported to the main process."""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Semaphore
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from latentscale.data.step_reader import Block, BlockReader
from latentscale.errors import UserError

# How long to wait for the exit status of a worker whose pipe broke.
_EXIT_STATUS_SECONDS = 5.0
_START_POLL_SECONDS = 0.2


class _WorkerTraceback(Exception):
    """The cause of a worker's error: shows the worker's traceback."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass
class _Failure:
    """An error of a worker, returned as a value: DataLoader would put the traceback into its message."""

    error: Exception
    location: str

    @classmethod
    def of(cls, error: Exception) -> "_Failure":
        location = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            # An error that cannot be pickled is reported by its type and message.
            return cls(RuntimeError(f"{type(error).__name__}: {error}"), location)
        return cls(error, location)

    def reraise(self) -> None:
        raise self.error from _WorkerTraceback(self.location)


class _Steps(Dataset[Any]):
    """The reader as DataLoader's dataset, indexed by step."""

    def __init__(self, reader: BlockReader) -> None:
        self._reader = reader

    def __getitem__(self, step: int) -> Block | _Failure:
        try:
            return self._reader.block(range(step, step + 1))
        except Exception as error:
            return _Failure.of(error)


def _unchanged(batch: Any) -> Any:
    return batch


def _become_worker(ready: Semaphore, _worker: int) -> None:
    """Ignore signals, which the main process handles, and exit when the main process ends in any way."""
    # A signal to the whole group asks the main process to stop cleanly, for which it may need its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    # DataLoader watches the parent's process id, which under a fork server is the server's, not that of the
    # main process.
    threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), name="parent watch", daemon=True).start()
    ready.release()


def _exit_with_parent(parent_sentinel: int) -> None:
    wait([parent_sentinel])
    os._exit(1)


def start_fork_server() -> ForkServerContext:
    """Start the server that forks worker processes, unless it runs; best before creating the process group."""
    context = multiprocessing.get_context("forkserver")
    assert isinstance(context, ForkServerContext)
    # No effect if a server already runs.
    context.set_forkserver_preload(["latentscale.data.fork_server"])
    forkserver.ensure_running()
    return context


class WorkerPool:
    """Processes that read steps ahead of time, one block per step; iterates in the order of the steps.

    Args:
        reader: reads blocks; picklable.
        steps: the steps to read, each once.
        workers: number of processes, at least 1.
        prefetch_steps: number of steps that all workers together read ahead, rounded up to a multiple of ``workers``.

    Raises:
        UserError: a worker process ended during its start.
    """

    def __init__(self, reader: BlockReader, steps: range, workers: int, prefetch_steps: int) -> None:
        self._steps = steps
        context = start_fork_server()
        ready = context.Semaphore(0)
        # Not persistent: the steps are read once.
        loader: DataLoader[Any] = DataLoader(
            _Steps(reader),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            collate_fn=_unchanged,
            worker_init_fn=partial(_become_worker, ready),
            multiprocessing_context=context,
            prefetch_factor=-(-prefetch_steps // workers),
            # DataLoader draws a seed, which must not change the process's random state.
            generator=torch.Generator(),
        )
        iterator: Any = iter(loader)
        self._iterator = iterator
        self._processes: list[Any] = list(iterator._workers)
        self._wait_until_all_run(ready)

    def _wait_until_all_run(self, ready: Semaphore) -> None:
        """Wait until all workers ignore signals to the whole group."""
        for _ in self._processes:
            while not ready.acquire(timeout=_START_POLL_SECONDS):
                if (ended := self._ended(0.0)) is not None:
                    self.close()
                    raise ended

    def __iter__(self) -> Iterator[tuple[range, Block]]:
        """Yield each step, as a range, and its block.

        Raises:
            UserError: a worker process ended unexpectedly.
            Exception: the reader's error, unchanged.
        """
        for step in self._steps:
            try:
                batch = next(self._iterator)
            except Exception as error:
                # If a worker ended, that is the reason, whatever error DataLoader raised.
                if (ended := self._ended(_EXIT_STATUS_SECONDS)) is not None:
                    raise ended from error
                raise
            if isinstance(batch, _Failure):
                batch.reraise()
            yield range(step, step + 1), batch

    def _ended(self, timeout_seconds: float) -> UserError | None:
        """The error to raise if a worker has ended or ends within ``timeout_seconds``; else None."""
        ended = wait([process.sentinel for process in self._processes], timeout=timeout_seconds)
        for process in self._processes:
            if process.sentinel in ended and (status := process.exitcode) is not None:
                return UserError(
                    f"data worker process {process.pid} ended unexpectedly ({_reason(status)}): {_remedy(status)}"
                )
        return None

    def close(self) -> None:
        """End the processes and drop the blocks that they were reading."""
        self._iterator._shutdown_workers()
        for process in self._processes:
            # A worker stuck in a read from a dead file system ignores SIGTERM, and would block the
            # interpreter's exit.
            if process.is_alive():
                process.kill()
                process.join()


def _reason(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _remedy(status: int) -> str:
    if status == -signal.SIGBUS:
        return "shared memory (/dev/shm) is probably full; enlarge it or lower data.prefetch_steps"
    if status == -signal.SIGKILL:
        return "the machine probably ran out of memory; lower data.workers or data.prefetch_steps"
    return "see the messages above, or set data.workers=0 to read without worker processes"
