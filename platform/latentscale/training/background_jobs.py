"""Long work of one process beside the training, so that the others do not wait for it in a collective."""

import threading
from collections.abc import Callable
from typing import Any

import torch


class BackgroundJobs:
    """A thread that does one job at a time; a second one waits its turn, so at most one is left to do.

    Args:
        name: of the thread.
        patience_seconds: how long a new job may hold up the training while the one before is at work.
        device: of the job's tensors; on a GPU it has a stream of its own.

    Attributes:
        error: what a job has raised.
    """

    def __init__(self, name: str, patience_seconds: float, device: torch.device) -> None:
        self._name = name
        self._patience = patience_seconds
        self._device = device
        # one for all jobs: what the allocator keeps for a stream no other one can use
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def start(self, job: Callable[[], Any]) -> bool:
        """Begin a job on things that nobody else changes.

        Returns:
            False, and the job is left out, where the one before is still at work after ``patience_seconds``.
        """
        if not self.wait(self._patience):
            return False
        if self._stream is not None:
            # what the training has enqueued so far comes first
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        self._thread = threading.Thread(target=self._run, args=(job,), name=self._name, daemon=True)
        self._thread.start()
        return True

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the job; False where it is not done by then."""
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    def _run(self, job: Callable[[], Any]) -> None:
        try:
            if self._stream is None:
                job()
            else:
                with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
                    job()
        except BaseException as error:
            self.error = error
