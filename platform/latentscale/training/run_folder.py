"""A run's folder: its lock, the checkpoint to continue from, and what a continued run must agree with. Rank 0 only."""

import errno
import fcntl
import os
from pathlib import Path
from typing import TextIO

from latentscale.atomic import new_file, refuse_special_file
from latentscale.config import Config, changed_keys
from latentscale.errors import Interruption, UserError
from latentscale.launching.restarts import restart_count
from latentscale.training.checkpoints import Checkpoint, list_checkpoints, load_checkpoint

_LOCK = ".lock"
_TEMPORARY_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)


class RunFolder:
    """``config.yaml metrics.jsonl snapshots/ checkpoints/ model/`` of one run.

    Opening takes a lock that lasts until `close` or the end of the process, moves an old run aside if ``run.restart``
    is set, and finds the checkpoint to continue from.

    Args:
        config: the run's, with its folder.
        identity: what else must stay the same: the method's name and the fingerprint of the data.

    Raises:
        UserError: if another run uses the folder, it cannot be written, it contains something other than a run, or a
            setting changed that a continued run must keep.
    """

    def __init__(self, config: Config, identity: dict[str, str]) -> None:
        self.path = Path(config.run.dir)
        self.checkpoints = self.path / "checkpoints"
        self.snapshots = self.path / "snapshots"
        self.model = self.path / "model"
        self.metrics = self.path / "metrics.jsonl"
        self.config = self.path / "config.yaml"
        self.stopped = self.path / "STOPPED"
        self.moved_to: Path | None = None
        try:
            self._refuse_foreign()
            self._lock = self._acquire()
            # a launcher that restarts failed processes repeats the command, and the run must then continue
            if config.run.restart and not restart_count() and self.config.exists():
                self.moved_to = self._move_aside()
                self._lock = self._acquire()
            self.resumed = self._checkpoint_to_continue(config, identity)
            self.stopped.unlink(missing_ok=True)
            with new_file(self.config) as new:
                new.write_text(config.to_yaml())
        except OSError as error:
            raise self.refusal(error) from None

    def refusal(self, error: OSError) -> UserError:
        """The error that the folder cannot be written; an Interruption if that may be temporary."""
        if error.errno in _TEMPORARY_ERRORS:
            return Interruption(f"run.dir={self.path} cannot be written ({error.strerror}): make room there")
        return UserError(f"run.dir={self.path} cannot be written ({error.strerror}): choose another run.dir")

    def close(self) -> None:
        """Release the folder's lock."""
        self._lock.close()

    def mark_stopped(self, step: int) -> None:
        """Write ``STOPPED``, which says that the run was asked to stop; it is there until the run continues."""
        with new_file(self.stopped) as new:
            new.write_text(f"stopped at step {step} with a checkpoint: run the same command to continue\n")

    def restore(self, config: Config) -> None:
        """Recreate the folder and its lock if they were removed during the run.

        Raises:
            OSError: if they cannot be recreated.
            UserError: if another run has taken the folder.
        """
        lock = self.path / _LOCK
        if not (lock.exists() and os.path.samestat(lock.stat(), os.fstat(self._lock.fileno()))):
            again = self._acquire()
            self._lock.close()
            self._lock = again
        if not self.config.exists():
            with new_file(self.config) as new:
                new.write_text(config.to_yaml())

    def _refuse_foreign(self) -> None:
        if self.path.is_dir() and any(self.path.iterdir()) and not self.config.exists():
            foreign = [entry for entry in self.path.iterdir() if not entry.name.startswith(".")]
            if foreign:
                raise UserError(f"run.dir={self.path} contains {foreign[0].name} but no run: choose an empty folder")

    def _acquire(self) -> TextIO:
        self.path.mkdir(parents=True, exist_ok=True)
        refuse_special_file(self.path / _LOCK)
        lock = (self.path / _LOCK).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"run.dir={self.path} is in use by another run: wait for it, or choose another run.dir"
            ) from None
        lock.write(str(os.getpid()))
        lock.flush()
        return lock

    def _move_aside(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        self.path.rename(aside)
        return aside

    def _checkpoint_to_continue(self, config: Config, identity: dict[str, str]) -> Checkpoint | None:
        found = list_checkpoints(self.checkpoints)
        if not found:
            return None
        checkpoint = load_checkpoint(found[-1])
        changes = [
            f"{name}: {checkpoint.identity.get(name)} → {value}"
            for name, value in identity.items()
            if checkpoint.identity.get(name) != value
        ]
        changes += changed_keys(checkpoint.config, config)
        if changes:
            raise UserError(
                f"run.dir={self.path} contains a run that differs in {'; '.join(changes)}: give the old value, another"
                " run.dir, or run.restart=true to move it aside and start over"
            )
        return checkpoint
