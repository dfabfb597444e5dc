"""Apply a function to many chunks in processes, with the results in order."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from latentscale.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

Report = Callable[[str, int, int], None]
"""A progress callback: the current activity, the number of items done, and their total."""

CHUNK_ITEMS = 16
"""Items that are sent to a worker together: enough to make the cost of sending small, few enough to fit in memory."""

_CHUNKS_AHEAD = 3
"""Chunks queued per worker: enough to keep it busy while earlier results are written, few enough to fit in memory."""


def in_chunks(items: Sequence[T], start: int, size: int) -> Iterator[Sequence[T]]:
    """Yield the items from ``start`` on, ``size`` at a time."""
    for first in range(start, len(items), size):
        yield items[first : first + size]


def ordered_map(function: Callable[[T], R], chunks: Iterator[T], workers: int) -> Iterator[R]:
    """Yield ``function(chunk)`` for every chunk, in order, for any number of processes.

    Args:
        function: picklable; sent to each process once.
        chunks: picklable.
        workers: number of processes; 0 computes in this process.

    Raises:
        UserError: a process ended unexpectedly or ran out of memory.
    """
    if workers == 0:
        try:
            yield from map(function, chunks)
        except MemoryError as error:
            raise UserError("ran out of memory: free some and run the command again") from error
        return
    # Spawned, not forked: the workers do not need torch or the memory of this process.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _become_worker, (function,))
    pending: deque[Future[Any]] = deque()
    try:
        for chunk in chunks:
            pending.append(pool.submit(_call, chunk))
            if len(pending) > _CHUNKS_AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except (BrokenProcessPool, MemoryError) as error:
        raise UserError(
            "a worker process ended unexpectedly or ran out of memory: run the command again with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_function: Callable[[Any], Any]


def _become_worker(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    # Ctrl-C reaches the whole group; only the main process handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), name="parent watch", daemon=True).start()


def _exit_with_parent(parent_sentinel: int) -> None:
    # If the main process is killed, a pool's workers would wait for work forever.
    wait([parent_sentinel])
    os._exit(1)


def _call(chunk: Any) -> Any:
    return _function(chunk)
