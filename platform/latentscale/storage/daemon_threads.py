"""Running functions in daemon threads: waiting for a dead remote must not delay the program's exit."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def run_in_daemon_thread(function: Callable[[], T], name: str) -> Future[T]:
    """Run ``function()`` in a new daemon thread; the future holds its result or exception."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
