"""Long jobs of one process in a thread, so that the other processes need not wait for them in a collective."""

import threading
from collections.abc import Callable
from typing import Any

import torch


class BackgroundJobs:
    """Runs one job at a time in a thread.

    Args:
        name: of the thread.
        patience_seconds: how long `start` may wait for the previous job.
        device: of the jobs' tensors; on a GPU they run in a stream of their own.

    Attributes:
        error: the exception that a job has raised, or None.
    """

    def __init__(self, name: str, patience_seconds: float, device: torch.device) -> None:
        self._name = name
        self._patience = patience_seconds
        self._device = device
        # one for all jobs, because memory that the allocator caches for a stream cannot serve another
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def start(self, job: Callable[[], Any]) -> bool:
        """Start a job, which must work on copies.

        Returns:
            False if the previous job is still running after ``patience_seconds``; the new one is then not run.
        """
        if not self.wait(self._patience):
            return False
        if self._stream is not None:
            # after everything that the training has enqueued so far
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        self._thread = threading.Thread(target=self._run, args=(job,), name=self._name, daemon=True)
        self._thread.start()
        return True

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the job; False if it is still running after so many seconds."""
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
