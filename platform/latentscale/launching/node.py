"""One node's launcher: `python -m latentscale.launching.node [options] recipes/pvdgan.py key=value …`.

Starts the node's processes with ``accelerate launch``, passes a request to stop on to them, and turns what they say
of their end into an exit status: 0 finished, or stopped as asked; 2 refused, by what a user must mend; 1 lost. Before
that, what was lost starts again, on all nodes together, up to ``--max-restarts`` times.
"""

import argparse
import asyncio
import contextlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NoReturn

import psutil

from latentscale.errors import UserError
from latentscale.launching.command import node_command, node_environment
from latentscale.launching.endings import Ending, joint_ending, read_endings
from latentscale.launching.meeting import WORDLESS, Meeting, Seat
from latentscale.launching.options import NodeOptions, Parser, add_options, make_options
from latentscale.launching.restarts import times_restarted
from latentscale.launching.workers import (
    adopt_orphans,
    end_with_parent,
    has_unreaped,
    kill_all_below,
    ranks_below,
    send,
    tell_exits,
)

POLL_SECONDS = 0.1
RETRY_SECONDS = 0.5
TELL_SECONDS = 10.0
INSIST_SECONDS = 3.0
REFUSED_SECONDS = 1.0
LOST_SECONDS = 10.0
"""For the other processes to notice, and say, that a run is refused or lost, before they are killed."""
EXIT_SECONDS = 10.0
"""For processes that have told their end to be gone."""
AGENT_SECONDS = 1.5
"""For their agent to notice."""
SAME_SECONDS = 0.5
"""For a signal that processes have ended by to come to the launcher, where all of a node are sent it."""
ANSWER_SECONDS = 10.0
"""For node 0 to answer to a loss."""
WELL = (Ending.FINISHED, Ending.STOPPED)


class Alone(Exception):
    """Other nodes have not come."""


class Stop:
    """A request to stop, by a signal to this launcher or to another node's.

    Attributes:
        asked_at: monotonic seconds of the first one.
        passed_on: this node's processes were told.
        insisted: it is to be at once.
    """

    def __init__(self) -> None:
        self.asked_at: float | None = None
        self.passed_on = self.insisted = False

    def take(self, number: signal.Signals) -> None:
        """Note a signal; a second Ctrl-C, seconds after the first one, means at once."""
        if self.asked_at is None:
            self.asked_at = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self.asked_at > INSIST_SECONDS:
            self.insisted = True

    @property
    def asked(self) -> bool:
        """Whether there was one."""
        return self.asked_at is not None


class Node:
    """A node's launcher.

    Args:
        options: its place and course.
        restarted_before: how often this run was started before by whoever starts the launchers.
    """

    def __init__(self, options: NodeOptions, restarted_before: int = 0) -> None:
        self.options = options
        self.restarted_before = restarted_before
        self.stop = Stop()
        self.rounds = 0
        self._meeting: Meeting | None = None

    async def run(self) -> int:
        """Start, restart, and return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.take, number)
        async with self._host():
            while True:
                try:
                    ending, reason = await self._round()
                except Alone as error:
                    self.say(f"{error}: giving up; the same command, on all nodes, continues from the last checkpoint")
                    return 1
                if ending in WELL:
                    return 0 if ending == Ending.FINISHED else self.options.stopped_status
                if ending == Ending.REFUSED:
                    if reason:
                        self.say(reason)
                    return 2
                if self.stop.passed_on:
                    self.say(
                        f"{reason}, after it was told to stop: the same command continues from the last checkpoint"
                    )
                    return 1
                if self.rounds > self.options.max_restarts:
                    again = f" after {self._restarts()}" if self.options.max_restarts else ""
                    self.say(f"{reason}: giving up{again}; the same command continues from the last checkpoint")
                    return 1
                # a request that comes between two starts leaves things as they are
                again = f"starting again in {self.options.pause_seconds:g} s"
                again += f" (restart {self.rounds} of {self.options.max_restarts})"
                self.say(f"{reason}: {'not started again, as it was told to stop' if self.stop.asked else again}")
                if self.options.node_rank == 0:  # the others wait for it at the meeting, where they can be told to stop
                    await self.pause(self.options.pause_seconds)

    def say(self, text: str) -> None:
        """One line on stderr."""
        name = "launcher" if self.options.nodes == 1 else f"launcher of node {self.options.node_rank}"
        print(f"{name}: {text}", file=sys.stderr, flush=True)

    def _restarts(self) -> str:
        return f"{self.options.max_restarts} restart{'s' if self.options.max_restarts > 1 else ''}"

    @contextlib.asynccontextmanager
    async def _host(self) -> AsyncIterator[None]:
        """The meeting, where it is this node's."""
        if self.options.nodes == 1 or self.options.node_rank != 0:
            yield
            return
        self._meeting = Meeting(self.options)
        await self._meeting.open()
        try:
            yield
        finally:
            await self._meeting.close()

    async def pause(self, seconds: float) -> None:
        """Wait, unless told to stop."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.stop.asked:
            await asyncio.sleep(POLL_SECONDS)
            if self._meeting and self._meeting.stopping:
                self.stop.take(signal.SIGTERM)

    async def _round(self) -> tuple[Ending, str]:
        """One start of the gang, from the meeting of the nodes to its end on all of them."""
        if self.options.nodes == 1:
            if self.stop.asked:
                return Ending.STOPPED, ""
            self.rounds += 1
            return await Gang(self, None).run()
        async with self._seat() as seat:
            if seat is not None and seat.over is not None:
                return seat.over, seat.reason
            if seat is not None:
                self.rounds = seat.round
                return await Gang(self, seat).run()
        if self._meeting:
            await self._meeting.dismiss()
        return Ending.STOPPED, ""

    @contextlib.asynccontextmanager
    async def _seat(self) -> AsyncIterator[Seat | None]:
        """A seat in a round that begins, or that says why none does; None where all are to stop.

        Raises:
            Alone: where others have not come in time.
        """
        options = self.options
        began = time.monotonic() + (options.pause_seconds if self.rounds and options.node_rank else 0.0)
        place = f"{options.main_address}:{options.main_port}"
        seat, missing, told = None, "nobody was asked", False
        try:
            while not self.stop.asked:
                if seat and (seat.round or seat.over is not None):
                    break
                if seat is None or seat.gone:
                    try:
                        seat = await Seat.take(options, self.rounds)
                    except (OSError, TimeoutError) as error:
                        missing = f"node 0 is not reached at {place} ({error.strerror or 'no answer'})"
                        await asyncio.sleep(RETRY_SECONDS)
                else:
                    if seat.missing:
                        missing = f"node {', '.join(map(str, seat.missing))} has not come to {place}"
                    if seat.stop:
                        self.stop.take(signal.SIGTERM)
                    await asyncio.sleep(POLL_SECONDS)
                waited = time.monotonic() - began
                if waited > options.meeting_seconds:
                    raise Alone(f"{missing} in {options.meeting_seconds:g} s")
                if waited > TELL_SECONDS and not told:
                    told = True
                    self.say(f"waiting: {missing}")
            if self.stop.asked:
                if seat is None or seat.gone:
                    with contextlib.suppress(OSError, TimeoutError):
                        seat = await Seat.take(options, self.rounds)
                if seat:
                    seat.ask_stop()
                yield None
            else:
                yield seat
        finally:
            if seat:
                seat.leave()


class Gang:
    """This node's processes in one round.

    Args:
        node: whose they are.
        seat: at the meeting, where there are other nodes.
    """

    def __init__(self, node: Node, seat: Seat | None) -> None:
        self.node, self.options, self.seat = node, node.options, seat
        self._ranks: dict[int, psutil.Process] = {}
        self._exit_codes: dict[int, int] = {}
        self._killed = False
        self._kill_at = float("inf")

    async def run(self) -> tuple[Ending, str]:
        """Start them and see them end; the ending of all nodes' together, and why where not well."""
        with tempfile.TemporaryDirectory(prefix="latentscale-endings-") as folder:
            restarts = self.node.restarted_before + self.node.rounds - 1
            agent = subprocess.Popen(
                node_command(self.options, self.seat.port if self.seat else 0),
                env=node_environment(self.options, restarts, Path(folder)),
                # Ctrl-C comes to the launcher, which passes it on once
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
            try:
                ending, reason = await self._attend(Path(folder), agent)
            finally:
                kill_all_below(psutil.Process())
                agent.wait()
        return ending, reason

    async def _attend(self, folder: Path, agent: subprocess.Popen[bytes]) -> tuple[Ending, str]:
        told_well, told_at, ended_at = False, float("inf"), float("inf")
        while agent.poll() is None:
            await asyncio.sleep(POLL_SECONDS)
            now = time.monotonic()
            self._pass_on_stop(agent)
            kinds = [said.ending for said in read_endings(folder)]
            if len(kinds) == self.options.processes_per_node and told_at == float("inf"):
                told_at = now
                if told_well := set(kinds) <= set(WELL):
                    self._tell(joint_ending(read_endings(folder), len(kinds)))
            heard = kinds or self.node.stop.passed_on
            if heard and self.options.processes > 1 and not ranks_below(psutil.Process(agent.pid)):
                ended_at = min(ended_at, now)
            # The agent is not waited for: it may wait for minutes for another node's that was told to stop, and of
            # what processes have said themselves it makes a page, unless it has begun to.
            if not told_well or self.seat is None or self._over():
                patience = 0.0 if not told_well and has_unreaped(psutil.Process(agent.pid)) else AGENT_SECONDS
                if now > told_at + EXIT_SECONDS or now > ended_at + patience:
                    break
            if not told_well and (set(kinds) - set(WELL) or self._over()):
                refused = Ending.REFUSED in kinds or (self.seat and self.seat.over == Ending.REFUSED)
                self._kill_within(REFUSED_SECONDS if refused else LOST_SECONDS)
            if now > self._kill_at or self.node.stop.insisted:
                self._killed = True
                break
        if -signal.SIGTERM in (agent.returncode, *self._exit_codes.values()):
            await self.node.pause(SAME_SECONDS)
        ending, where, reason = self._local(folder, agent)
        if not told_well:
            self._tell(ending, where, reason, wordless=ending == Ending.STOPPED)
        return await self._together(ending, f"{where}: {reason}" if where else reason)

    def _local(self, folder: Path, agent: subprocess.Popen[bytes]) -> tuple[Ending, str, str]:
        """How this node's processes ended; where not well, which and why."""
        endings = read_endings(folder)
        if not endings and agent.returncode == 0:
            return Ending.FINISHED, "", ""  # a script that tells nothing
        if self.options.processes == 1 and not endings and agent.returncode == 2:
            return Ending.REFUSED, "", ""
        ending = joint_ending(endings, self.options.processes_per_node)
        if ending in WELL:
            return ending, "", ""
        first = self.options.node_rank * self.options.processes_per_node
        silent = set(range(first, first + self.options.processes_per_node)) - {said.rank for said in endings}
        if silent and {said.ending for said in endings} <= set(WELL) and self._ended_by_stop(silent, agent):
            return Ending.STOPPED, "", ""
        if ending == Ending.LOST and silent:
            return ending, f"rank {', '.join(map(str, sorted(silent)))}", WORDLESS
        said = [(f"rank {said.rank}", said.reason or ending.value) for said in endings if said.ending == ending]
        return (ending, *(said or [("", "not all ranks ended alike")])[0])

    def _ended_by_stop(self, silent: set[int], agent: subprocess.Popen[bytes]) -> bool:
        """Whether ranks without a word were ended by the request to stop: before they had begun, so nothing is lost."""
        if self._killed or not self.node.stop.asked:
            return False
        if self.options.processes == 1:
            return agent.returncode == -signal.SIGTERM
        return all(self._exit_codes.get(rank, 0) in (0, -signal.SIGTERM) for rank in silent)

    async def _together(self, ending: Ending, reason: str) -> tuple[Ending, str]:
        """What the nodes' endings are together: who has ended well waits for the others."""
        if ending == Ending.REFUSED:
            reason = ""  # its processes have said why
        if self.seat is None:
            return ending, reason
        until = time.monotonic() + (float("inf") if ending in WELL else ANSWER_SECONDS)
        while not self._over() and time.monotonic() < until and not self.node.stop.insisted:
            self._note_stop()
            await asyncio.sleep(POLL_SECONDS)
        if ending == Ending.REFUSED:
            return ending, reason
        if self.seat.over in WELL:
            return ending if ending in WELL else self.seat.over, ""
        if ending == Ending.STOPPED and self.node.stop.asked:
            return ending, ""  # a node that did not stop says so itself
        if self.seat.over is None:
            # node 0 has gone; what stopped although nobody asked was stopped by its launcher's end
            return (Ending.LOST, "node 0 has gone") if ending == Ending.STOPPED else (ending, reason)
        return self.seat.over, self.seat.reason

    def _over(self) -> bool:
        """Whether the other nodes' part has ended, or node 0 has gone."""
        return self.seat is not None and (self.seat.gone or self.seat.over is not None)

    def _tell(self, ending: Ending, where: str = "", reason: str = "", wordless: bool = False) -> None:
        if self.seat:
            self.seat.tell_ended(ending, where, reason, wordless)

    def _note_stop(self) -> None:
        if self.seat and self.seat.stop:
            self.node.stop.take(signal.SIGTERM)

    def _pass_on_stop(self, agent: subprocess.Popen[bytes]) -> None:
        """SIGTERM to the ranks, not to the agent: it would report a failure whatever they do."""
        self._note_stop()
        if self.options.processes == 1:
            self._ranks = {0: psutil.Process(agent.pid)}
        elif len(self._ranks) < self.options.processes_per_node:
            found = ranks_below(psutil.Process(agent.pid))
            # the agent, which looks every 1.5 s, forgets how they ended
            tell_exits({rank: found[rank] for rank in found.keys() - self._ranks.keys()}, self._exit_codes.__setitem__)
            self._ranks |= found
        if not self.node.stop.asked or self.node.stop.passed_on:
            return
        self.node.stop.passed_on = True
        if self.seat:
            self.seat.ask_stop()
        complete = len(self._ranks) == self.options.processes_per_node
        send(signal.SIGTERM, self._ranks.values() if complete else [psutil.Process(agent.pid)])
        self._kill_within(self.options.grace_seconds)

    def _kill_within(self, seconds: float) -> None:
        self._kill_at = min(self._kill_at, time.monotonic() + seconds)


def start(options: NodeOptions, restarted_before: int | None = None) -> int:
    """Launch this node's part of a run, and return the exit status.

    Args:
        restarted_before: how often whoever starts the launchers did so before; as the environment says without it.

    Raises:
        UserError: where node 0 cannot listen at its port.
    """
    if options.dry_run:
        print(shlex.join(node_command(options, options.main_port if options.nodes > 1 else 0)))
        return 0
    if restarted_before is None:
        restarted_before = times_restarted()
    adopt_orphans()
    return asyncio.run(Node(options, restarted_before).run())


def make_parser(program: str, description: str) -> Parser:
    """A parser of a node's options."""
    parser = Parser(
        prog=program,
        usage=f"{program} [options] recipes/pvdgan.py [key=value …]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser)
    return parser


def exit_with(act: Callable[[], int]) -> NoReturn:
    """End with the status that an act returns; with 2 and one line for what a user can mend."""
    try:
        status = act()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        status = 2
    raise SystemExit(status)


def main() -> NoReturn:
    """The command line."""
    parser = make_parser("python -m latentscale.launching.node", __doc__ or "")
    exit_with(lambda: start(make_options(vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
