"""Work in threads that hold up nobody: what waits for a dead remote must not delay the end of the program."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def run_in_daemon_thread(act: Callable[[], T], name: str) -> Future[T]:
    """What ``act()`` returns or raises, once a daemon thread of its own has run it."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(act())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
