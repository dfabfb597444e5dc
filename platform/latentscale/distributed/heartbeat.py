"""Heartbeats: each process publishes its step every few seconds, so that a missing process can be named.

A collective that waits for a process that is gone only hangs, or reports a closed connection. So a thread of each
process writes a heartbeat to the process group's key-value store, outside the collectives and the steps. Rank 0 reads
all heartbeats and publishes a failure when one is missing; the others read the failure and rank 0's heartbeat. Each
interval therefore costs the store one read per process.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any

import torch.distributed as dist

from latentscale.distributed.agreement import broadcast, is_distributed
from latentscale.distributed.topology import Topology
from latentscale.errors import Interruption

FINISHED, LOST_CONTACT = "finished", "lost contact"
ALL_LOST_CONTACT = "all processes lost contact with each other"
FAST_TIMEOUT_INTERVALS = 2.5
"""After a connection was closed, a process that misses this many intervals is gone: live processes are heard from at
least every second interval."""
SETTLE_INTERVALS = 4.0
"""After a connection was closed, this many intervals pass until every process that failed with it has been silent for
FAST_TIMEOUT_INTERVALS: its last heartbeat may be read one interval late, and checked half an interval after that."""
LINGER_INTERVALS, LINGER_SECONDS = 3.0, 3.0
"""The store may end with rank 0, so rank 0 stays: the others read its failure at their next interval, or the one after.
With long intervals it stays this many seconds after the next one, since launchers do not wait for ever."""
SIMULTANEOUS_INTERVALS = 2.0
"""The last heartbeats of processes that fail at the same moment are read at most this far apart."""


@dataclass(frozen=True)
class Heartbeat:
    """What one process last published.

    Attributes:
        number: counts the process's heartbeats from 1.
        step: steps taken.
        stage: the stage of the step that the process is in.
        end: empty while it trains; FINISHED, LOST_CONTACT, or why it ended, in one line.
    """

    number: int
    step: int
    stage: str
    host: str
    end: str = ""


@dataclass(frozen=True)
class Failure:
    """What went wrong, in one line.

    Attributes:
        ranks: the ranks that failed and cannot report it themselves.
    """

    message: str
    ranks: list[int] = field(default_factory=list)


RANK_ZERO_UNREACHABLE = Failure("rank 0 is unreachable", [0])


class FailureDetector:
    """Decides from the heartbeats of all processes whether one has failed.

    Args:
        processes: number of processes; each counts as heard from now.
        now: seconds of any monotonic clock.
    """

    def __init__(self, processes: int, now: float) -> None:
        self._heartbeats: list[Heartbeat | None] = [None] * processes
        self._changed_at = [now] * processes
        self._progress_at = now
        self._lost_contact_at: float | None = None

    def record(self, rank: int, heartbeat: Heartbeat, now: float) -> None:
        """Record the heartbeat that the store holds for a rank; an unchanged one counts as silence."""
        before = self._heartbeats[rank]
        if before is None or (before.step, before.stage) != (heartbeat.step, heartbeat.stage):
            self._progress_at = now
        if before != heartbeat:
            self._heartbeats[rank], self._changed_at[rank] = heartbeat, now
        if heartbeat.end == LOST_CONTACT and self._lost_contact_at is None:
            self._lost_contact_at = now

    def find_failure(
        self, now: float, timeout_seconds: float, interval_seconds: float, stuck_seconds: float | None = None
    ) -> Failure | None:
        """The failure that the heartbeats show; None while there is none.

        Args:
            timeout_seconds: a process that is silent for this long is missing; FAST_TIMEOUT_INTERVALS suffice once any
                process has lost a connection or waited too long in a collective.
            interval_seconds: between two heartbeats.
            stuck_seconds: it is a failure if no process makes progress for this long; None where collectives time out
                by themselves.
        """
        fast = self._lost_contact_at is not None and now - self._lost_contact_at >= SETTLE_INTERVALS * interval_seconds
        fast_timeout_seconds = FAST_TIMEOUT_INTERVALS * interval_seconds
        limit = fast_timeout_seconds if fast else timeout_seconds
        training = [rank for rank, heartbeat in enumerate(self._heartbeats) if heartbeat is None or not heartbeat.end]
        silences = {rank: now - self._changed_at[rank] for rank in training}
        if silences and max(silences.values()) >= limit:
            together = max(min(limit, fast_timeout_seconds), limit - SIMULTANEOUS_INTERVALS * interval_seconds)
            return self._silent([rank for rank, seconds in silences.items() if seconds >= together], now)
        # why a process ended explains more than that others lost contact with it
        for rank, heartbeat in enumerate(self._heartbeats):
            if heartbeat is not None and heartbeat.end not in ("", FINISHED, LOST_CONTACT):
                return Failure(f"rank {rank} ended: {heartbeat.end}", [rank])
        if training and stuck_seconds is not None and now - self._progress_at >= stuck_seconds:
            stuck = f"no process has made progress for {now - self._progress_at:.0f} s"
            return Failure(f"{stuck}: {self._describe(training)}")
        if not fast:
            return None
        if not training:
            return Failure(ALL_LOST_CONTACT)
        return Failure(f"{self._describe(training)} did not join a collective that the others waited in")

    def find_rank_zero_failure(
        self, now: float, timeout_seconds: float, replied_at: float, interval_seconds: float
    ) -> Failure | None:
        """The failure of rank 0, for the other processes, which read only its heartbeat.

        Args:
            replied_at: when the store last replied. The heartbeat read then may be an interval old, so a cut link
                first shows as a missing heartbeat. If the store does not reply either, the store is unreachable;
                otherwise rank 0 is silent.
        """
        heartbeat = self._heartbeats[0]
        if now - self._changed_at[0] < timeout_seconds or heartbeat is None or heartbeat.end not in ("", LOST_CONTACT):
            return None
        if now - replied_at >= FAST_TIMEOUT_INTERVALS * interval_seconds:
            return RANK_ZERO_UNREACHABLE
        return self._silent([0], now)

    def _silent(self, ranks: list[int], now: float) -> Failure:
        longest = max(now - self._changed_at[rank] for rank in ranks)
        message = f"no heartbeat from {self._describe(ranks)} for {longest:.0f} s: killed, stopped or disconnected"
        return Failure(message, ranks)

    def _describe(self, ranks: Sequence[int]) -> str:
        """The ranks by host, with the last step of each host's first rank."""
        by_host: dict[str, list[int]] = {}
        for rank in ranks:
            heartbeat = self._heartbeats[rank]
            by_host.setdefault(heartbeat.host if heartbeat else "", []).append(rank)
        parts = []
        for host, on_host in by_host.items():
            heartbeat = self._heartbeats[on_host[0]]
            numbers = ", ".join(map(str, on_host))
            place = f" on {host}" if host else ""
            last = ""
            if heartbeat:
                last = f" (last at step {heartbeat.step:,}{', ' + heartbeat.stage if heartbeat.stage else ''})"
            parts.append(f"rank{'s' if len(on_host) > 1 else ''} {numbers}{place}{last}")
        return " and ".join(parts)


class HeartbeatMonitor:
    """Two threads for the duration of a ``with``: one talks to the store, the other watches. One process needs neither.

    A request to the store may hang for as long as a link is cut, so another thread must count the seconds. That thread
    leaves out the seconds in which it did not run itself: to a process that was suspended, or had no processor, all
    others would seem silent.

    Args:
        interval_seconds: between two heartbeats.
        timeout_seconds: a process that is silent for this long has failed.
        on_failure: ends this process when others have failed while the main thread hangs; called in a thread with the
            message, the step, and whether this process is the one of its node that prints the message.

    Attributes:
        step, stage: what the next heartbeat carries.
        stuck_seconds: the run ends if no process makes progress for this long; None where collectives time out by
            themselves.
    """

    def __init__(
        self, rank: int, interval_seconds: float, timeout_seconds: float, on_failure: Callable[[str, int, bool], Any]
    ) -> None:
        self.step, self.stage = 0, "start-up"
        self.stuck_seconds: float | None = None
        self._rank = rank
        self._interval, self._timeout = interval_seconds, timeout_seconds
        self._fast_timeout = FAST_TIMEOUT_INTERVALS * interval_seconds
        self._linger = min(LINGER_INTERVALS * interval_seconds, 1.5 * interval_seconds + LINGER_SECONDS)
        self._on_failure = on_failure
        self._host = socket.gethostname()
        self._processes = 1
        self._store: Any = None
        self._number, self._end = 0, ""
        self._clock = 0.0
        self._reply: tuple[float, Sequence[bytes]] = (0.0, ())
        self._store_failed = False
        self._failure: Failure | None = None
        self._wake, self._failure_known, self._lost_contact, self._closed = (threading.Event() for _ in range(4))
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "HeartbeatMonitor":
        if not is_distributed():
            return self
        self._processes = dist.get_world_size()
        # one process group may serve several runs, one after the other
        run = broadcast(time.time_ns())
        # a connection of its own: a request that hangs delays nobody else
        own = dist.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
        self._store = dist.PrefixStore(f"latentscale-heartbeat-{run}", own)
        self._publish()
        if self._rank == 0:
            self._store.set("failure", "")
        broadcast(None)  # the others read only keys that rank 0 has set by now; a read of a missing key would block
        for target in (self._exchange, self._watch):
            thread = threading.Thread(target=target, name=f"heartbeat: {target.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and lost_contact(error):
            self._wait_for_failure()
        else:
            self.leave(FINISHED if error is None else f"{type(error).__name__}: {error}".splitlines()[0])

    def interruption(self, error: BaseException) -> Interruption:
        """Why the process group failed under the main thread, after the ``with``; printed once per node."""
        message = self._failure.message if self._failure else "lost contact with another process"
        if self._failure is None or self._failure.message == ALL_LOST_CONTACT:
            message += f" ({str(error).splitlines()[0]})"
        interruption = Interruption(f"{message}; run the same command to continue")
        # a shared error is printed by a node's first process only
        interruption.shared = Topology.from_environment().local_rank == 0 or not self._prints_for_node()
        return interruption

    def _prints_for_node(self) -> bool:
        """Whether this is the process of its node that prints the failure: the first that is still alive."""
        topology = Topology.from_environment()
        failed = self._failure.ranks if self._failure else []
        first = topology.rank - topology.local_rank
        return all(rank in failed for rank in range(first, topology.rank))

    def enter(self, stage: str) -> None:
        """Publish this stage of a step from now on."""
        self.stage = stage

    def leave(self, end: str = FINISHED) -> None:
        """Publish how this process ends, so that no other misses it, and stop watching the others."""
        if not self._threads or self._closed.is_set():
            return
        self._end = end
        self._closed.set()
        self._wake.set()
        self._threads[0].join(self._interval)

    def _wait_for_failure(self) -> None:
        """Publish that the process group failed here, and wait until the failed processes are known."""
        if not self._threads:
            return
        self._end = LOST_CONTACT
        self._lost_contact.set()
        self._wake.set()
        known = self._failure_known.wait((SETTLE_INTERVALS + 4) * self._interval + 1)
        if known and self._rank == 0:
            time.sleep(self._linger)
        self._closed.set()

    def _exchange(self) -> None:
        if self._rank == 0:
            keys = [f"heartbeat-{rank}" for rank in range(self._processes)]
        else:
            keys = ["failure", "heartbeat-0"]
        published = False
        try:
            while True:
                closing = self._closed.is_set()
                self._publish()
                if closing:
                    return
                if self._rank == 0 and self._failure and not published:
                    published = True
                    self._store.set("failure", json.dumps(asdict(self._failure)))
                requested_at = self._clock
                self._reply = (requested_at, self._store.multi_get(keys))
                self._wake.wait(self._interval)
                self._wake.clear()
        except (dist.DistError, RuntimeError):  # rank 0 is gone, and the store with it
            self._store_failed = True

    def _watch(self) -> None:
        detector, looked = FailureDetector(self._processes, self._clock), time.monotonic()
        while not self._closed.wait(self._interval / 2):
            before, looked = looked, time.monotonic()
            self._clock += min(looked - before, self._interval)
            if failure := self._check(detector, self._clock):
                self._failure = failure
                break
        else:
            return
        self._failure_known.set()
        self._wake.set()
        # if the main thread noticed by itself, it is the one to end the process
        if self._closed.wait(self._linger if self._rank == 0 else 2 * self._interval) or self._lost_contact.is_set():
            return
        self._on_failure(failure.message, self.step, self._prints_for_node())

    def _check(self, detector: FailureDetector, now: float) -> Failure | None:
        """The failure that the store's last reply shows, or that it no longer replies."""
        replied_at, reply = self._reply
        # a failure that rank 0 published holds, even if rank 0 has ended since
        if self._rank != 0 and reply and reply[0]:
            return Failure(**json.loads(reply[0]))
        if self._store_failed or now - replied_at >= (
            self._fast_timeout if self._lost_contact.is_set() else self._timeout
        ):
            return RANK_ZERO_UNREACHABLE
        if self._rank == 0:
            for rank, text in enumerate(reply):
                detector.record(rank, Heartbeat(**json.loads(text)), now)
            return detector.find_failure(now, self._timeout, self._interval, self.stuck_seconds)
        if not reply:
            return None
        detector.record(0, Heartbeat(**json.loads(reply[1])), now)
        limit = self._fast_timeout + self._interval if self._lost_contact.is_set() else self._timeout
        return detector.find_rank_zero_failure(now, limit, replied_at, self._interval)

    def _publish(self) -> None:
        self._number += 1
        heartbeat = Heartbeat(self._number, self.step, self.stage, self._host, self._end)
        self._store.set(f"heartbeat-{self._rank}", json.dumps(asdict(heartbeat)))


def lost_contact(error: BaseException) -> bool:
    """Whether an error of the process group only says that another process is gone or did not join."""
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


_SIGNS: Iterable[str] = (
    "gloo/transport", "Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Broken pipe",
    "remote process exited", "ncclRemoteError", "ncclSystemError", "NCCL communicator was aborted",
    "Watchdog caught collective",
)  # fmt: skip
