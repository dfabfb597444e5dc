"""Reading ahead: the next step's batch is decoded, and made ready, before it is asked for."""

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

# Long enough for one batch to be decoded; the thread is a daemon, so a stuck file system does not hold up the
# exit.
_THREAD_END_SECONDS = 10.0


class _BoundedQueue(Generic[T]):
    """A bounded queue from the thread that makes batches to the one that takes them; either can end it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._finished = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Wait for room; False where nobody takes any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < self._capacity or self._closed)
            if not self._closed:
                self._ready.append(item)
                self._changed.notify_all()
            return not self._closed

    def finish(self, error: BaseException | None = None) -> None:
        """Nothing follows; the error, if any, is raised after what is ready was taken."""
        with self._changed:
            self._finished = True
            self._error = error
            self._changed.notify_all()

    def take(self) -> T:
        """The next item; StopIteration, or the maker's error, after the last."""
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
    """Ends a loader's thread and processes once: on close, garbage collection or the interpreter's exit."""

    def __init__(self, handover: _BoundedQueue[Any], thread: threading.Thread, pool: WorkerPool | None) -> None:
        self._handover = handover
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
        self._handover.close()
        if self._thread is not threading.current_thread():
            self._thread.join(_THREAD_END_SECONDS)
        if self._pool is not None:
            self._pool.close()


Made = tuple[Sequence[T], Mapping[int, list[Skipped]]]
"""What was made of some steps, and what had to be skipped in which of them."""


def _read_in_thread(reader: BlockReader, steps: range, block_steps: int) -> Iterator[tuple[range, Block]]:
    for start in range(steps.start, steps.stop, block_steps):
        several = steps[start - steps.start :][:block_steps]
        try:
            block = reader.block(several)
        except Exception:
            # the steps before the one that cannot be read are still good
            for step in several:
                yield range(step, step + 1), reader.block(range(step, step + 1))
        else:
            yield several, block


def _fill(
    blocks: Iterable[tuple[range, Block]],
    finish: Callable[[range, Tensor, Tensor], Sequence[T]],
    handover: _BoundedQueue[Made[T]],
) -> None:
    """The thread's work; it holds no reference to the loader, which can so be collected while it runs."""
    try:
        for steps, block in blocks:
            if not handover.put((finish(steps, block.images, block.labels), block.skipped)):
                return
    except BaseException as error:
        handover.finish(error)
    else:
        handover.finish()


class Loader(Generic[T]):
    """Yields what ``finish(steps, images, labels)`` returns for every step, made before it is asked for.

    Use as a context manager, or call :meth:`close`. Anything raised in the thread or in a worker process is
    raised by ``next`` as itself, after the batches before it; what ``finish`` raises, after the blocks before it.

    Args:
        reader: of images uint8 ``[steps, n, C, H, W]`` and labels int64 ``[steps, n]`` of some steps.
        workers: processes that read and decode; 0 leaves it to one background thread (decoders release the
            GIL).
        prefetch_steps: steps made ready ahead, rounded up to whole blocks; worker processes read ahead as many again.
        block_steps: steps that the thread makes in one go where it reads by itself. Every time it takes the
            interpreter it holds up the training loop; that is felt where steps take but some milliseconds.
        start_step, stop_step: the steps to be read.
        finish: runs in the background thread: draws, casts, pinning; returns as many things as there are steps.

    Attributes:
        waited_seconds: time that ``next`` has waited so far.
        skipped: samples that could not be read and were replaced in the steps taken so far; one comes again with every
            step that it should have been in. Whoever reads them clears the list.
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
        self._handover: _BoundedQueue[Made[T]] = _BoundedQueue(-(-prefetch_steps // self._block_steps))
        self._taken: deque[T] = deque()
        self._next_step = start_step
        self._skipped: dict[int, list[Skipped]] = {}
        self.skipped: list[Skipped] = []
        self._ending: _Shutdown | None = None
        self._closed = False
        self.waited_seconds = 0.0

    def start(self) -> None:
        """Start the processes and the thread, as ``next`` would; call it before the process group is made."""
        if self._closed:
            raise RuntimeError("the loader is closed")
        if self._ending is not None:
            return
        pool: WorkerPool | None = None
        if self._workers and self._steps:
            pool = WorkerPool(self._reader, self._steps, self._workers, self._prefetch_steps)
            blocks = iter(pool)
        else:
            blocks = _read_in_thread(self._reader, self._steps, self._block_steps)
        thread = threading.Thread(
            target=_fill, args=(blocks, self._finish, self._handover), name="data loader", daemon=True
        )
        self._ending = _Shutdown(self._handover, thread, pool)
        # Registered last and so run first: multiprocessing's own exit waits for workers that have not been
        # told to end.
        atexit.register(self._ending)
        weakref.finalize(self, self._ending).atexit = False
        thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        self.start()
        began = time.perf_counter()
        try:
            if self._closed or not self._taken:
                made, skipped = self._handover.take()
                self._taken.extend(made)
                self._skipped |= skipped
            if self._skipped:
                self.skipped += self._skipped.pop(self._next_step, ())
            self._next_step += 1
            return self._taken.popleft()
        finally:
            self.waited_seconds += time.perf_counter() - began

    def close(self) -> None:
        """End the thread and the processes; what was made ready is dropped. May be called again."""
        self._closed = True
        self._taken.clear()
        if self._ending is not None:
            self._ending()

    def __enter__(self) -> "Loader[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
