"""Who is there: each process tells the others its step every few seconds, and whoever falls silent is named.

A collective that waits for a process that has gone only hangs, or says that a connection was closed. So a thread of
each process leaves its word in the process group's key-value store, outside the collectives and the steps. Rank 0 reads
all words and, when one is missing, publishes a verdict; the others read the verdict and rank 0's word. A beat so costs
the store one request a process.
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

FINISHED, LOST = "finished", "lost contact"
ALL_LOST = "all processes have lost contact with one another"
HURRIED_BEATS = 2.5
"""After a connection was closed, who misses so many beats has gone: the living are heard at least every second one."""
SETTLED_BEATS = 4.0
"""After a connection was closed, as long until all who went with it have been silent for HURRIED_BEATS: their last
words may be read a beat after they went, and judged half a beat after that."""
STAY_BEATS, STAY_SECONDS = 3.0, 3.0
"""The store may end with rank 0: the others read its verdict at their next beat, or the one after; of long beats,
so much after the next one: launchers do not wait for ever."""
TOGETHER_BEATS = 2.0
"""Those who went at one moment are heard for the last time no further apart."""


@dataclass(frozen=True)
class Word:
    """What one process last said.

    Attributes:
        beat: how often it has said something.
        step: steps taken.
        stage: of the step, which it is in.
        end: empty while it trains; FINISHED, LOST, or why it ended, in one line.
    """

    beat: int
    step: int
    stage: str
    host: str
    end: str = ""


@dataclass(frozen=True)
class Verdict:
    """What has happened, in one line.

    Attributes:
        gone: ranks that cannot say it any more.
    """

    text: str
    gone: list[int] = field(default_factory=list)


UNREACHABLE = Verdict("rank 0 unreachable", [0])


class Roll:
    """What rank 0 knows of all: their last words, and since when it has heard nothing new from each.

    Args:
        processes: how many there are; all count as heard now.
        now: seconds of any clock that does not jump.
    """

    def __init__(self, processes: int, now: float) -> None:
        self._words: list[Word | None] = [None] * processes
        self._changed = [now] * processes
        self._moved = now
        self._lost_at: float | None = None

    def hear(self, rank: int, word: Word, now: float) -> None:
        """Take what stands in the store; the same as before is silence."""
        before = self._words[rank]
        if before is None or (before.step, before.stage) != (word.step, word.stage):
            self._moved = now
        if before != word:
            self._words[rank], self._changed[rank] = word, now
        if word.end == LOST and self._lost_at is None:
            self._lost_at = now

    def verdict(
        self, now: float, silence_seconds: float, beat_seconds: float, stuck_seconds: float | None = None
    ) -> Verdict | None:
        """Who is missing, in one line; None while nobody is known to be.

        Args:
            silence_seconds: who says nothing for so long is missing; HURRIED_BEATS are enough once any process has
                lost a connection or waited too long in a collective.
            beat_seconds: between two words.
            stuck_seconds: what is wrong where no process comes further for so long; None where collectives tell.
        """
        hurry = self._lost_at is not None and now - self._lost_at >= SETTLED_BEATS * beat_seconds
        hurried_seconds = HURRIED_BEATS * beat_seconds
        limit = hurried_seconds if hurry else silence_seconds
        training = [rank for rank, word in enumerate(self._words) if word is None or not word.end]
        silences = {rank: now - self._changed[rank] for rank in training}
        if silences and max(silences.values()) >= limit:
            together = max(min(limit, hurried_seconds), limit - TOGETHER_BEATS * beat_seconds)
            return self._silent([rank for rank, seconds in silences.items() if seconds >= together], now)
        # why a process ended explains more than that others have lost it
        for rank, word in enumerate(self._words):
            if word is not None and word.end not in ("", FINISHED, LOST):
                return Verdict(f"rank {rank} ended: {word.end}", [rank])
        if training and stuck_seconds is not None and now - self._moved >= stuck_seconds:
            return Verdict(f"no process has come further for {now - self._moved:.0f} s: {self._named(training)}")
        if not hurry:
            return None
        if not training:
            return Verdict(ALL_LOST)
        return Verdict(f"{self._named(training)} did not come to a collective that the others waited in")

    def verdict_on_rank_zero(
        self, now: float, silence_seconds: float, answered: float, beat_seconds: float
    ) -> Verdict | None:
        """The same of rank 0 alone, for the others, to which only it speaks.

        Args:
            answered: when the store last answered. The word read then may be a beat old, so that a link that is cut
                is noticed by the word first: a store that does not answer either is out of reach, not rank 0 silent.
        """
        word = self._words[0]
        if now - self._changed[0] < silence_seconds or word is None or word.end not in ("", LOST):
            return None
        return UNREACHABLE if now - answered >= HURRIED_BEATS * beat_seconds else self._silent([0], now)

    def _silent(self, ranks: list[int], now: float) -> Verdict:
        longest = max(now - self._changed[rank] for rank in ranks)
        text = f"nothing heard from {self._named(ranks)} for {longest:.0f} s: killed, stopped or cut off"
        return Verdict(text, ranks)

    def _named(self, ranks: Sequence[int]) -> str:
        """Ranks by host, with the last step that each host's first told."""
        by_host: dict[str, list[int]] = {}
        for rank in ranks:
            word = self._words[rank]
            by_host.setdefault(word.host if word else "", []).append(rank)
        parts = []
        for host, there in by_host.items():
            word = self._words[there[0]]
            numbers = ", ".join(map(str, there))
            place = f" on {host}" if host else ""
            last = f" (last at step {word.step:,}{', ' + word.stage if word.stage else ''})" if word else ""
            parts.append(f"rank{'s' if len(there) > 1 else ''} {numbers}{place}{last}")
        return " and ".join(parts)


class HeartbeatMonitor:
    """Two threads, from ``with`` to its end: one talks with the store, the other judges; nothing for one process.

    What talks may hang for as long as a link is cut, so that another one must count the seconds. It leaves out those in
    which it did not run itself: to whoever was stopped, or had no processor, all others would seem silent.

    Args:
        heartbeat_seconds: between two words.
        silence_seconds: who says nothing for so long has gone.
        give_up: ends this process when others have gone while the main thread hangs: told why, the step, and whether
            this is the process of its node that says it; called in a thread.

    Attributes:
        step, stage: what the next word tells.
        stuck_seconds: no process coming further for so long ends the run; None where collectives by themselves wait no
            longer than they may.
    """

    def __init__(
        self, rank: int, heartbeat_seconds: float, silence_seconds: float, give_up: Callable[[str, int, bool], Any]
    ) -> None:
        self.step, self.stage = 0, "start-up"
        self.stuck_seconds: float | None = None
        self._rank = rank
        self._heartbeat, self._silence = heartbeat_seconds, silence_seconds
        self._hurried = HURRIED_BEATS * heartbeat_seconds
        self._stay = min(STAY_BEATS * heartbeat_seconds, 1.5 * heartbeat_seconds + STAY_SECONDS)
        self._give_up = give_up
        self._host = socket.gethostname()
        self._processes = 1
        self._store: Any = None
        self._beat, self._end = 0, ""
        self._clock = 0.0
        self._answer: tuple[float, Sequence[bytes]] = (0.0, ())
        self._refused = False
        self._verdict: Verdict | None = None
        self._poked, self._known, self._lost, self._closed = (threading.Event() for _ in range(4))
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "HeartbeatMonitor":
        if not is_distributed():
            return self
        self._processes = dist.get_world_size()
        # one process group may serve several runs, one after the other
        run = broadcast(time.time_ns())
        # a connection of its own: a request that hangs holds up nobody else
        own = dist.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
        self._store = dist.PrefixStore(f"latentscale-presence-{run}", own)
        self._speak()
        if self._rank == 0:
            self._store.set("verdict", "")
        broadcast(None)  # the others ask only for what rank 0 has said by now; what is missing would be waited for
        for act in (self._talk, self._judge):
            thread = threading.Thread(target=act, name=f"presence: {act.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and lost_contact(error):
            self._ask()
        else:
            self.leave(FINISHED if error is None else f"{type(error).__name__}: {error}".splitlines()[0])

    def interruption(self, error: BaseException) -> Interruption:
        """Why the process group failed under the main thread, once the ``with`` is left; said once a node."""
        told = self._verdict.text if self._verdict else "lost contact with another process"
        if self._verdict is None or self._verdict.text == ALL_LOST:
            told += f" ({str(error).splitlines()[0]})"
        interruption = Interruption(f"{told}; run the same command to continue")
        # what is shared is said by a node's first process alone
        interruption.shared = Topology.from_environment().local_rank == 0 or not self._says_it()
        return interruption

    def _says_it(self) -> bool:
        """Whether this is the process of its node to say the verdict: the first that is still there."""
        topology = Topology.from_environment()
        gone = self._verdict.gone if self._verdict else []
        first = topology.rank - topology.local_rank
        return all(rank in gone for rank in range(first, topology.rank))

    def enter(self, stage: str) -> None:
        """Tell the stage of a step from now on."""
        self.stage = stage

    def leave(self, end: str = FINISHED) -> None:
        """Say how this process ends, so that nobody misses it; nobody is missed from here on either."""
        if not self._threads or self._closed.is_set():
            return
        self._end = end
        self._closed.set()
        self._poked.set()
        self._threads[0].join(self._heartbeat)

    def _ask(self) -> None:
        """Say that the process group has failed here, and wait until it is known who has gone."""
        if not self._threads:
            return
        self._end = LOST
        self._lost.set()
        self._poked.set()
        known = self._known.wait((SETTLED_BEATS + 4) * self._heartbeat + 1)
        if known and self._rank == 0:
            time.sleep(self._stay)
        self._closed.set()

    def _talk(self) -> None:
        names = [f"word-{rank}" for rank in range(self._processes)] if self._rank == 0 else ["verdict", "word-0"]
        published = False
        try:
            while True:
                closing = self._closed.is_set()
                self._speak()
                if closing:
                    return
                if self._rank == 0 and self._verdict and not published:
                    published = True
                    self._store.set("verdict", json.dumps(asdict(self._verdict)))
                asked = self._clock
                self._answer = (asked, self._store.multi_get(names))
                self._poked.wait(self._heartbeat)
                self._poked.clear()
        except (dist.DistError, RuntimeError):  # rank 0 has gone, and the store with it
            self._refused = True

    def _judge(self) -> None:
        roll, looked = Roll(self._processes, self._clock), time.monotonic()
        while not self._closed.wait(self._heartbeat / 2):
            before, looked = looked, time.monotonic()
            self._clock += min(looked - before, self._heartbeat)
            if verdict := self._judged(roll, self._clock):
                self._verdict = verdict
                break
        else:
            return
        self._known.set()
        self._poked.set()
        # the main thread, if it noticed by itself, is the one to end the process
        if self._closed.wait(self._stay if self._rank == 0 else 2 * self._heartbeat) or self._lost.is_set():
            return
        self._give_up(verdict.text, self.step, self._says_it())

    def _judged(self, roll: Roll, now: float) -> Verdict | None:
        """What the last answer tells, or that there is none any more."""
        answered, found = self._answer
        # what rank 0 has said holds, even if it has gone since
        if self._rank != 0 and found and found[0]:
            return Verdict(**json.loads(found[0]))
        if self._refused or now - answered >= (self._hurried if self._lost.is_set() else self._silence):
            return UNREACHABLE
        if self._rank == 0:
            for rank, text in enumerate(found):
                roll.hear(rank, Word(**json.loads(text)), now)
            return roll.verdict(now, self._silence, self._heartbeat, self.stuck_seconds)
        if not found:
            return None
        roll.hear(0, Word(**json.loads(found[1])), now)
        limit = self._hurried + self._heartbeat if self._lost.is_set() else self._silence
        return roll.verdict_on_rank_zero(now, limit, answered, self._heartbeat)

    def _speak(self) -> None:
        self._beat += 1
        word = Word(self._beat, self.step, self.stage, self._host, self._end)
        self._store.set(f"word-{self._rank}", json.dumps(asdict(word)))


def lost_contact(error: BaseException) -> bool:
    """Whether an error of the process group only says that another process has gone or did not come."""
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


_SIGNS: Iterable[str] = (
    "gloo/transport", "Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Broken pipe",
    "remote process exited", "ncclRemoteError", "ncclSystemError", "NCCL communicator was aborted",
    "Watchdog caught collective",
)  # fmt: skip
