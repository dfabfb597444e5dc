"""Training loops of one process that step in turns, so that they are timed next to each other."""

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Loop = Callable[[Callable[[], bool]], object]


class Contestant:
    """A training loop in its own thread that runs only in its turns; between them it waits at the stop request.

    Args:
        loop: called with a function that it must call once a step and that says whether to stop.

    Raises:
        RuntimeError: the loop ended by itself; its own error is the cause.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._steps_left, self._timed_steps = 1, 0
        self._began = self._seconds = 0.0
        self._stopping = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        # up to the first time it asks: building is no part of any turn
        self._thread.start()
        self._wait()

    def take(self, steps: int, warm_up_steps: int = 1) -> float:
        """Seconds of a turn of steps, after untimed steps: the caches hold another loop's data."""
        self._steps_left, self._timed_steps = warm_up_steps + steps, steps
        if not warm_up_steps:
            self._began = time.perf_counter()
        self._go.release()
        self._wait()
        return self._seconds

    def close(self) -> None:
        """Ask the loop to stop, and wait until it has."""
        self._stopping = True
        self._steps_left = -1
        self._go.release()
        self._thread.join()
        if self._error is not None:
            raise RuntimeError("a loop failed when it was asked to stop") from self._error

    def _wait(self) -> None:
        self._back.acquire()
        if self._error is not None:
            raise RuntimeError("a loop ended before it was asked to stop") from self._error

    def _should_stop(self) -> bool:
        self._steps_left -= 1
        if self._steps_left == self._timed_steps:
            self._began = time.perf_counter()
        if self._steps_left == 0:
            self._seconds = time.perf_counter() - self._began
            self._back.release()
            self._go.acquire()
        return self._stopping

    def _run(self) -> None:
        try:
            self._loop(self._should_stop)
        except BaseException as error:
            self._error = error
        finally:
            if not self._stopping and self._error is None:
                self._error = RuntimeError("the loop returned")
            self._back.release()


@dataclass
class Ratio:
    """By how much one took longer than another, over paired rounds."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def __str__(self) -> str:
        return f"{self.median:.3f} ({min(self.rounds):.3f}-{max(self.rounds):.3f})"


def rounds_of_turns(names: Sequence[str], rounds: int) -> list[list[str]]:
    """The order of turns: each round starts with another loop, and goes forth and back against drift."""
    orders = [[*names[start % len(names) :], *names[: start % len(names)]] for start in range(rounds)]
    return [[*order, *reversed(order)] for order in orders]


def time_rounds(contestants: Mapping[str, Contestant], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds per step by name and round, after one warm-up round.

    Args:
        steps: of a turn; every contestant has two turns a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number, order in enumerate(rounds_of_turns(list(contestants), rounds + 1)):
        spent = dict.fromkeys(contestants, 0.0)
        for name in order:
            spent[name] += contestants[name].take(steps)
        if number:
            for name, total in spent.items():
                seconds[name].append(total / (2 * steps))
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], one: str, other: str) -> Ratio:
    """Round by round, ``one`` / ``other``."""
    return Ratio([a / b for a, b in zip(seconds[one], seconds[other], strict=True)])
