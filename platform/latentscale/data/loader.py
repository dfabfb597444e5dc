"""Prefetching: a background thread prepares the next batches before the training loop needs them."""

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

from torch import Tensor

from latentscale.data.step_reader import Block, BlockReader
from latentscale.data.unreadable_samples import Skipped
from latentscale.data.worker_pool import WorkerPool
from latentscale.errors import UserError

T = TypeVar("T")

# Long enough to decode one batch. The thread is a daemon, so a stuck file system does not block the exit.
_THREAD_JOIN_SECONDS = 10.0


class _BoundedQueue(Generic[T]):
    """A bounded queue between the thread that prepares batches and the one that uses them; either side can end it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._finished = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Append an item when there is room; False if the queue was closed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._capacity or self._closed)
            if not self._closed:
                self._ready.append(item)
                self._changed.notify_all()
            return not self._closed

    def finish(self, error: BaseException | None = None) -> None:
        """Mark the end; :meth:`take` raises the error, if any, after the last item."""
        with self._changed:
            self._finished = True
            self._error = error
            self._changed.notify_all()

    def take(self) -> T:
        """Wait for the next item; after the last, raise StopIteration or the producer's error."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._finished or self._closed)
            if self._closed:
                raise RuntimeError("the loader is closed")
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            raise StopIteration

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()


class _Shutdown:
    """Ends a loader's thread and processes, once: on close, garbage collection or the interpreter's exit."""

    def __init__(self, queue: _BoundedQueue[Any], thread: threading.Thread, pool: WorkerPool | None) -> None:
        self._queue = queue
        self._thread = thread
        self._pool = pool
        self._lock = threading.Lock()
        self._ended = False

    def __call__(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        atexit.unregister(self)
        self._queue.close()
        if self._thread is not threading.current_thread():
            self._thread.join(_THREAD_JOIN_SECONDS)
        if self._pool is not None:
            self._pool.close()


Prepared = tuple[Sequence[T], Mapping[int, list[Skipped]]]
"""The prepared batches of some steps, and the samples skipped in each step."""


def _read_in_thread(reader: BlockReader, steps: range, block_steps: int) -> Iterator[tuple[range, Block]]:
    for start in range(steps.start, steps.stop, block_steps):
        block_range = steps[start - steps.start :][:block_steps]
        try:
            block = reader.block(block_range)
        except Exception:
            # the steps before the unreadable one are still good
            for step in block_range:
                yield range(step, step + 1), reader.block(range(step, step + 1))
        else:
            yield block_range, block


def _fill(
    blocks: Iterable[tuple[range, Block]],
    finish: Callable[[range, Tensor, Tensor], Sequence[T]],
    queue: _BoundedQueue[Prepared[T]],
) -> None:
    """The thread's work. It holds no reference to the loader, so that the loader can be garbage-collected meanwhile."""
    try:
        for steps, block in blocks:
            if not queue.put((finish(steps, block.images, block.labels), block.skipped)):
                return
    except BaseException as error:
        queue.finish(error)
    else:
        queue.finish()


class Loader(Generic[T]):
    """Yields what ``finish(steps, images, labels)`` returns for every step, prepared ahead of time.

    Use as a context manager, or call :meth:`close`. ``next`` re-raises an error of the thread or of a
    worker process unchanged, after the batches before it; an error of ``finish``, after the blocks before it.

    Args:
        reader: reads images uint8 ``[steps, n, C, H, W]`` and labels int64 ``[steps, n]`` of some steps.
        workers: number of processes that read and decode; 0: one background thread does (decoders release the
            GIL).
        prefetch_steps: number of steps to prepare ahead, rounded up to whole blocks; worker processes read as many
            again ahead.
        block_steps: number of steps that the thread prepares together if ``workers`` is 0. The training loop waits
            whenever the thread holds the interpreter, which costs time if steps take only a few milliseconds.
        start_step, stop_step: the range of steps to read.
        finish: runs in the background thread (draws, casts, pinning); returns one item per step.

    Attributes:
        waited_seconds: total time that ``next`` has waited.
        skipped: unreadable samples that were replaced in the steps returned so far; a sample is listed again for every
            step that it belongs to. The reader of this list clears it.
    """

    def __init__(
        self,
        reader: BlockReader,
        *,
        workers: int,
        prefetch_steps: int,
        start_step: int,
        stop_step: int,
        finish: Callable[[range, Tensor, Tensor], Sequence[T]],
        block_steps: int = 1,
    ) -> None:
        if workers < 0:
            raise UserError(f"data.workers={workers} is not allowed: it must be at least 0")
        if prefetch_steps < 1:
            raise UserError(f"data.prefetch_steps={prefetch_steps} is not allowed: it must be at least 1")
        self._reader = reader
        self._workers = workers
        self._prefetch_steps = prefetch_steps
        self._block_steps = 1 if workers else block_steps
        self._steps = range(start_step, stop_step)
        self._finish = finish
        self._queue: _BoundedQueue[Prepared[T]] = _BoundedQueue(-(-prefetch_steps // self._block_steps))
        self._taken: deque[T] = deque()
        self._next_step = start_step
        self._skipped: dict[int, list[Skipped]] = {}
        self.skipped: list[Skipped] = []
        self._shutdown: _Shutdown | None = None
        self._closed = False
        self.waited_seconds = 0.0

    def start(self) -> None:
        """Start the processes and the thread, as ``next`` does too; call it before creating the process group."""
        if self._closed:
            raise RuntimeError("the loader is closed")
        if self._shutdown is not None:
            return
        pool: WorkerPool | None = None
        if self._workers and self._steps:
            pool = WorkerPool(self._reader, self._steps, self._workers, self._prefetch_steps)
            blocks = iter(pool)
        else:
            blocks = _read_in_thread(self._reader, self._steps, self._block_steps)
        thread = threading.Thread(
            target=_fill, args=(blocks, self._finish, self._queue), name="data loader", daemon=True
        )
        self._shutdown = _Shutdown(self._queue, thread, pool)
        # Registered last and so run first: multiprocessing's own exit handler would wait for workers that
        # nobody has stopped.
        atexit.register(self._shutdown)
        weakref.finalize(self, self._shutdown).atexit = False
        thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        self.start()
        began = time.perf_counter()
        try:
            if self._closed or not self._taken:
                prepared, skipped = self._queue.take()
                self._taken.extend(prepared)
                self._skipped |= skipped
            if self._skipped:
                self.skipped += self._skipped.pop(self._next_step, ())
            self._next_step += 1
            return self._taken.popleft()
        finally:
            self.waited_seconds += time.perf_counter() - began

    def close(self) -> None:
        """End the thread and the processes, and drop prepared batches. May be called more than once."""
        self._closed = True
        self._taken.clear()
        if self._shutdown is not None:
            self._shutdown()

    def __enter__(self) -> "Loader[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
