"""One function over many chunks, in processes, with the results in order."""

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
"""Is told of progress: what is being done, how many items are done, and of how many."""

CHUNK_ITEMS = 16
"""Items that travel to a worker at once: enough that sending them costs little, few enough for any memory."""

_CHUNKS_AHEAD = 3
"""Of each worker: enough to keep it busy while the results before it are written, few enough for any memory."""


def in_chunks(items: Sequence[T], start: int, size: int) -> Iterator[Sequence[T]]:
    """The items from ``start`` on, so many at a time."""
    for first in range(start, len(items), size):
        yield items[first : first + size]


def ordered_map(function: Callable[[T], R], chunks: Iterator[T], workers: int) -> Iterator[R]:
    """``function`` of every chunk, in order, whatever the number of processes.

    Args:
        function: picklable; reaches each process once.
        chunks: picklable.
        workers: processes; 0 computes in this one.

    Raises:
        UserError: a process ends before it has answered, or memory does not suffice.
    """
    if workers == 0:
        try:
            yield from map(function, chunks)
        except MemoryError as error:
            raise UserError("there is too little memory: free some, and run the command again") from error
        return
    # Spawned: they need neither torch nor what else this process holds.
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
    # Ctrl-C reaches the whole group; the main process decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), name="parent watch", daemon=True).start()


def _exit_with_parent(parent_sentinel: int) -> None:
    # A pool's workers would wait forever for the work of a main process that was killed.
    wait([parent_sentinel])
    os._exit(1)


def _call(chunk: Any) -> Any:
    return _function(chunk)
