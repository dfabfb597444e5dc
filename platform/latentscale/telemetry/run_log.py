"""A run's metrics on disk and on the terminal: names and values, independent of methods and networks."""

import errno
import json
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from latentscale.atomic import new_file
from latentscale.errors import UserError

_MAX_PENDING_LINES = 100_000


class MetricsFile:
    """``metrics.jsonl``: one JSON object per line, truncated to the step that a run continues from.

    Lines that are not records are left out.

    Non-finite values are written as null, since JSON has no NaN. Several threads may write lines. A line that cannot be
    written is held and written before the next one; a file that was deleted is created again.
    """

    def __init__(self, path: Path, start_step: int) -> None:
        kept = []
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a regular file: move it away, then run the same command to continue")
        if path.exists():
            for line in path.read_text(errors="replace").splitlines():
                if (step := _step_of(line)) is not None and step <= start_step:
                    kept.append(line)
        with new_file(path) as new:
            new.write_text("".join(line + "\n" for line in kept))
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._pending: deque[bytes] = deque(maxlen=_MAX_PENDING_LINES)
        self._lock = threading.Lock()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record.

        Raises:
            OSError: the disk is full; the record is held.
        """
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        with self._lock:
            self._pending.append(json.dumps(finite).encode() + b"\n")
            if not self._path.exists():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file.close()
                self._file = self._path.open("ab", buffering=0)
            while self._pending:
                end = os.fstat(self._file.fileno()).st_size
                written = self._file.write(self._pending[0])
                if written != len(self._pending[0]):  # a full disk takes only a part
                    os.ftruncate(self._file.fileno(), end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._pending.popleft()

    def close(self) -> None:
        self._file.close()


class _FittingLine(ProgressColumn):
    """Step, speed and time left, then what fits of the terminal's line: a bar, and the losses, the first ones first."""

    BAR_WIDTH, BARS_FROM_WIDTH = 20, 100

    def __init__(self, console: Console) -> None:
        super().__init__(Column(no_wrap=True, overflow="crop"))
        self._console = console

    def render(self, task: Task) -> Text:
        """The line for the terminal's present width."""
        width = self._console.width
        total = task.total or 0
        parts = [f"step {task.completed:,.0f}/{total:,.0f}", str(task.fields["speed"]), _time(task)]
        if width >= self.BARS_FROM_WIDTH:
            parts.insert(1, self._bar(task.completed / total if total else 0.0))
        line = "  ".join(part for part in parts if part)
        for loss in task.fields["losses"]:
            if len(line) + 2 + len(loss) > width:
                break
            line += f"  {loss}"
        return Text(line[:width])

    def _bar(self, share: float) -> str:
        full, empty = "=-" if self._console.options.ascii_only else "━╌"
        done = round(self.BAR_WIDTH * min(1.0, share))
        return full * done + empty * (self.BAR_WIDTH - done)


def _time(task: Task) -> str:
    """The time left, or the time taken by what is finished."""
    if task.finished:
        return str(timedelta(seconds=int(task.finished_time or 0)))
    return "" if task.time_remaining is None else f"{timedelta(seconds=int(task.time_remaining))} left"


def _step_of(line: str) -> float | None:
    """The step of a record; None for anything else, such as the last line of a killed run."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = record.get("step", 0) if isinstance(record, dict) else None
    return step if isinstance(step, int | float) and not isinstance(step, bool) else None


class ProgressLine:
    """Step, images per second, time left and some losses: a live line on a terminal, otherwise a line at intervals.

    Args:
        total: steps of the run.
        done: steps that were taken before.
        enabled: False prints nothing.
        shown: keys to show of a report, in this order; missing ones are left out.
    """

    def __init__(self, total: int, done: int, enabled: bool, shown: Sequence[str]) -> None:
        self.total = total
        self._shown = shown
        self._console = Console(file=sys.stderr)
        self._live = enabled and self._console.is_terminal
        self._plain = enabled and not self._live
        self._printed_at = 0.0
        self._first: tuple[int, float] | None = None
        self._stopped = False
        self._progress = Progress(
            _FittingLine(self._console),
            console=self._console,
            refresh_per_second=2,  # drawing the line delays the training loop by milliseconds
            disable=not self._live,
        )
        self._task = self._progress.add_task("train", total=total, completed=done, speed="", losses=())

    def start(self) -> None:
        """Start drawing the live line."""
        self._progress.start()

    def stop(self) -> None:
        """Stop drawing the live line; calling it again does nothing."""
        if self._stopped:
            return
        self._stopped = True
        self._progress.stop()

    def advance(self, step: int) -> None:
        """Show that ``step`` steps have been taken."""
        if self._live:
            self._progress.update(self._task, completed=step)

    def report(self, step: int, record: Mapping[str, Any]) -> None:
        """Show the speed and losses of a report."""
        speed = f"{record['images_per_second']:,.0f} images/s"
        losses = [
            f"{key.replace('discriminator/', 'D ').replace('generator/', 'G ')} {record[key]:.3f}"
            for key in self._shown
            if isinstance(record.get(key), float)
        ]
        self._progress.update(self._task, completed=step, speed=speed, losses=losses)
        now = time.monotonic()
        self._first = self._first or (step, now)
        if self._plain and (now - self._printed_at > 10 or step == self.total):
            self._printed_at = now
            begun, since = self._first
            left = (self.total - step) * (now - since) / (step - begun) if step > begun else math.nan
            time_left = f"  {left:,.0f} s left" if math.isfinite(left) else ""  # the first report has no speed yet
            self._console.print(
                f"step {step:,}/{self.total:,}  {speed}{time_left}  {'  '.join(losses)}",
                highlight=False,
                soft_wrap=True,
            )

    def info(self, text: str) -> None:
        """Print a line above the progress line, if progress is shown."""
        if self._live or self._plain:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Print a line above the progress line, even if no progress is shown."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def tensorboard_logger(accelerator: Any, start_step: int) -> Callable[[Mapping[str, Any], int], None]:
    """TensorBoard through Accelerate's tracker, in the run's ``tensorboard/``; later steps are removed.

    Raises:
        OSError: that folder cannot be written.
    """
    try:
        accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": start_step + 1}})
    except OSError:
        # Accelerate would fail to close a tracker that has not started, and hide the reason
        accelerator.trackers.clear()
        raise

    def log(record: Mapping[str, Any], step: int) -> None:
        numbers = {key: value for key, value in record.items() if isinstance(value, int | float) and key != "step"}
        accelerator.log(numbers, step=step)

    return log
