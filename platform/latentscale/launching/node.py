"""One node's launcher: `python -m latentscale.launching.node [options] recipes/pvdgan.py key=value …`.

Starts the node's processes with ``accelerate launch``, forwards a request to stop to them, and turns their exit reports
into an exit status: 0 finished, or stopped as requested; 2 an error that the user must fix; 1 failed. A failed run is
first restarted, on all nodes together, up to ``--max-restarts`` times.
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
from latentscale.launching.exit_reports import SUCCESSFUL, ExitReason, combine_exit_reasons, read_exit_reports
from latentscale.launching.node_options import LauncherParser, NodeOptions, add_options, make_options
from latentscale.launching.process_tree import (
    adopt_orphans,
    child_ranks,
    has_zombie_child,
    kill_descendants,
    send_signal,
    terminate_with_parent,
    watch_exits,
)
from latentscale.launching.rendezvous import NO_REPORT, RendezvousClient, RendezvousServer
from latentscale.launching.restarts import restart_count
from latentscale.wording import counted

POLL_SECONDS = 0.1
RECONNECT_SECONDS = 0.5
NOTICE_SECONDS = 10.0
"""Before the launcher prints which nodes it waits for."""
SECOND_INTERRUPT_SECONDS = 3.0
USER_ERROR_SECONDS = 1.0
FAILURE_SECONDS = 10.0
"""After a user error or a failure, for the other processes to notice and report it, before they are killed."""
EXIT_SECONDS = 10.0
"""After all processes have reported, for them to exit."""
AGENT_SECONDS = 1.5
"""After all processes have exited, for their agent to notice."""
SIGNAL_SECONDS = 0.5
"""For a signal that ended the processes to reach the launcher too, where all processes of a node are sent it."""
REPLY_SECONDS = 10.0
"""For node 0 to reply to a reported failure."""


class RendezvousTimeout(Exception):
    """Other nodes did not join in time."""


class StopState:
    """A request to stop, by a signal to this launcher or to another node's.

    Attributes:
        requested_at: monotonic seconds of the first request.
        forwarded: whether this node's processes were sent it.
        immediate: whether it must happen at once.
    """

    def __init__(self) -> None:
        self.requested_at: float | None = None
        self.forwarded = self.immediate = False

    def record(self, number: signal.Signals) -> None:
        """Record a signal; a second Ctrl-C, seconds after the first request, means at once."""
        if self.requested_at is None:
            self.requested_at = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self.requested_at > SECOND_INTERRUPT_SECONDS:
            self.immediate = True

    @property
    def requested(self) -> bool:
        """Whether there was a request."""
        return self.requested_at is not None


class NodeLauncher:
    """A node's launcher.

    Args:
        options: this node's.
        restarted_before: how often whoever starts the launchers has restarted this run.
    """

    def __init__(self, options: NodeOptions, restarted_before: int = 0) -> None:
        self.options = options
        self.restarted_before = restarted_before
        self.stop = StopState()
        self.rounds = 0
        self._server: RendezvousServer | None = None

    async def run(self) -> int:
        """Start the processes, restart them after failures, and return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # nohup ignores SIGHUP
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self.stop.record, number)
        async with self._serve_rendezvous():
            while True:
                try:
                    result, message = await self._run_round()
                except RendezvousTimeout as error:
                    self.log(
                        f"{error}: giving up; run the same command on all nodes to continue from the last checkpoint"
                    )
                    return 1
                if result in SUCCESSFUL:
                    return 0 if result == ExitReason.FINISHED else self.options.stopped_status
                if result == ExitReason.USER_ERROR:
                    if message:
                        self.log(message)
                    return 2
                if self.stop.forwarded:
                    self.log(
                        f"{message}, after a request to stop: run the same command to continue from the last checkpoint"
                    )
                    return 1
                if self.rounds > self.options.max_restarts:
                    limit = self.options.max_restarts
                    after = f" after {counted(limit, 'restart')}" if limit else ""
                    self.log(f"{message}: giving up{after}; run the same command to continue from the last checkpoint")
                    return 1
                # a request that arrives between two starts ends the run as it is
                restart = f"restarting in {self.options.pause_seconds:g} s"
                restart += f" (restart {self.rounds} of {self.options.max_restarts})"
                self.log(
                    f"{message}: {'not restarted, since it was asked to stop' if self.stop.requested else restart}"
                )
                if self.options.node_rank == 0:  # the others wait for it at the rendezvous, where a stop reaches them
                    await self.pause(self.options.pause_seconds)

    def log(self, text: str) -> None:
        """One line on stderr."""
        name = "launcher" if self.options.nodes == 1 else f"launcher of node {self.options.node_rank}"
        print(f"{name}: {text}", file=sys.stderr, flush=True)

    @contextlib.asynccontextmanager
    async def _serve_rendezvous(self) -> AsyncIterator[None]:
        """The rendezvous server, if this node runs it."""
        if self.options.nodes == 1 or self.options.node_rank != 0:
            yield
            return
        self._server = RendezvousServer(self.options)
        await self._server.open()
        try:
            yield
        finally:
            await self._server.close()

    async def pause(self, seconds: float) -> None:
        """Wait, unless asked to stop."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.stop.requested:
            await asyncio.sleep(POLL_SECONDS)
            if self._server and self._server.stopping:
                self.stop.record(signal.SIGTERM)

    async def _run_round(self) -> tuple[ExitReason, str]:
        """One start of the processes, from the rendezvous of the nodes to the end on all of them."""
        if self.options.nodes == 1:
            if self.stop.requested:
                return ExitReason.STOPPED, ""
            self.rounds += 1
            return await LocalWorkers(self, None).run()
        async with self._join_rendezvous() as client:
            if client is not None and client.result is not None:
                return client.result, client.message
            if client is not None:
                self.rounds = client.round
                return await LocalWorkers(self, client).run()
        if self._server:
            await self._server.stop_all()
        return ExitReason.STOPPED, ""

    @contextlib.asynccontextmanager
    async def _join_rendezvous(self) -> AsyncIterator[RendezvousClient | None]:
        """A client in a round that begins, or that knows why none does; None if all nodes are to stop.

        Raises:
            RendezvousTimeout: other nodes did not join in time.
        """
        options = self.options
        began = time.monotonic() + (options.pause_seconds if self.rounds and options.node_rank else 0.0)
        address = f"{options.main_address}:{options.main_port}"
        client, missing, noticed = None, "no node was contacted", False
        try:
            while not self.stop.requested:
                if client and (client.round or client.result is not None):
                    break
                if client is None or client.disconnected:
                    try:
                        client = await RendezvousClient.connect(options, self.rounds)
                    except (OSError, TimeoutError) as error:
                        missing = f"could not reach node 0 at {address} ({error.strerror or 'no reply'})"
                        await asyncio.sleep(RECONNECT_SECONDS)
                else:
                    if client.missing:
                        missing = f"node {', '.join(map(str, client.missing))} did not join at {address}"
                    if client.stop_requested:
                        self.stop.record(signal.SIGTERM)
                    await asyncio.sleep(POLL_SECONDS)
                waited = time.monotonic() - began
                if waited > options.rendezvous_seconds:
                    raise RendezvousTimeout(f"{missing} within {options.rendezvous_seconds:g} s")
                if waited > NOTICE_SECONDS and not noticed:
                    noticed = True
                    self.log(f"still waiting: {missing}")
            if self.stop.requested:
                if client is None or client.disconnected:
                    with contextlib.suppress(OSError, TimeoutError):
                        client = await RendezvousClient.connect(options, self.rounds)
                if client:
                    client.request_stop()
                yield None
            else:
                yield client
        finally:
            if client:
                client.close()


class LocalWorkers:
    """This node's processes in one round.

    Args:
        launcher: that starts them.
        client: of the rendezvous, if there are other nodes.
    """

    def __init__(self, launcher: NodeLauncher, client: RendezvousClient | None) -> None:
        self.launcher, self.options, self.client = launcher, launcher.options, client
        self._ranks: dict[int, psutil.Process] = {}
        self._exit_codes: dict[int, int] = {}
        self._killed = False
        self._kill_at = float("inf")

    async def run(self) -> tuple[ExitReason, str]:
        """Start them and wait for their end; how the round ended on all nodes, and why unless successful."""
        with tempfile.TemporaryDirectory(prefix="latentscale-exit-reports-") as folder:
            restarts = self.launcher.restarted_before + self.launcher.rounds - 1
            agent = subprocess.Popen(
                node_command(self.options, self.client.port if self.client else 0, Path(folder) / "agent"),
                env=node_environment(self.options, restarts, Path(folder)),
                # Ctrl-C reaches the launcher, which forwards it once
                start_new_session=True,
                preexec_fn=terminate_with_parent,
            )
            try:
                result, message = await self._monitor(Path(folder), agent)
            finally:
                kill_descendants(psutil.Process())
                agent.wait()
        return result, message

    async def _monitor(self, folder: Path, agent: subprocess.Popen[bytes]) -> tuple[ExitReason, str]:
        successful, reported_at, exited_at = False, float("inf"), float("inf")
        while agent.poll() is None:
            await asyncio.sleep(POLL_SECONDS)
            now = time.monotonic()
            self._forward_stop(agent)
            reasons = [report.reason for report in read_exit_reports(folder)]
            if len(reasons) == self.options.processes_per_node and reported_at == float("inf"):
                reported_at = now
                if successful := set(reasons) <= set(SUCCESSFUL):
                    self._report(combine_exit_reasons(read_exit_reports(folder), len(reasons)))
            ending = reasons or self.launcher.stop.forwarded
            if ending and self.options.processes > 1 and not child_ranks(psutil.Process(agent.pid)):
                exited_at = min(exited_at, now)
            # Do not wait for the agent: it may wait for minutes for another node's agent that was asked to stop, and it
            # prints a page about what the processes have reported themselves, unless it has begun to.
            if not successful or self.client is None or self._round_is_over():
                grace = 0.0 if not successful and has_zombie_child(psutil.Process(agent.pid)) else AGENT_SECONDS
                if now > reported_at + EXIT_SECONDS or now > exited_at + grace:
                    break
            if not successful and (set(reasons) - set(SUCCESSFUL) or self._round_is_over()):
                user_error = ExitReason.USER_ERROR in reasons or (
                    self.client and self.client.result == ExitReason.USER_ERROR
                )
                self._kill_within(USER_ERROR_SECONDS if user_error else FAILURE_SECONDS)
            if now > self._kill_at or self.launcher.stop.immediate:
                self._killed = True
                break
        if -signal.SIGTERM in (agent.returncode, *self._exit_codes.values()):
            await self.launcher.pause(SIGNAL_SECONDS)
        result, ranks, message = self._local_result(folder, agent)
        if not successful:
            self._report(result, ranks, message, stopped_at_start=result == ExitReason.STOPPED)
        return await self._joint_result(result, f"{ranks}: {message}" if ranks else message)

    def _local_result(self, folder: Path, agent: subprocess.Popen[bytes]) -> tuple[ExitReason, str, str]:
        """How this node's processes ended; unless successful, also which of them and why."""
        reports = read_exit_reports(folder)
        if not reports and agent.returncode == 0:
            return ExitReason.FINISHED, "", ""  # a script that writes no reports
        if self.options.processes == 1 and not reports and agent.returncode == 2:
            return ExitReason.USER_ERROR, "", ""
        result = combine_exit_reasons(reports, self.options.processes_per_node)
        if result in SUCCESSFUL:
            return result, "", ""
        first = self.options.node_rank * self.options.processes_per_node
        silent = set(range(first, first + self.options.processes_per_node)) - {report.rank for report in reports}
        if silent and {report.reason for report in reports} <= set(SUCCESSFUL) and self._ended_by_stop(silent, agent):
            return ExitReason.STOPPED, "", ""
        if result == ExitReason.FAILED and silent:
            return result, f"rank {', '.join(map(str, sorted(silent)))}", NO_REPORT
        causes = [
            (f"rank {report.rank}", report.message or result.value) for report in reports if report.reason == result
        ]
        return (result, *(causes or [("", "its processes did not all end the same way")])[0])

    def _ended_by_stop(self, silent: set[int], agent: subprocess.Popen[bytes]) -> bool:
        """Whether the request to stop ended the ranks without a report: they had not begun, so nothing is lost."""
        if self._killed or not self.launcher.stop.requested:
            return False
        if self.options.processes == 1:
            return agent.returncode == -signal.SIGTERM
        return all(self._exit_codes.get(rank, 0) in (0, -signal.SIGTERM) for rank in silent)

    async def _joint_result(self, result: ExitReason, message: str) -> tuple[ExitReason, str]:
        """How the round ended on all nodes together: a node that was successful waits for the others."""
        if result == ExitReason.USER_ERROR:
            message = ""  # its processes have printed why
        if self.client is None:
            return result, message
        until = time.monotonic() + (float("inf") if result in SUCCESSFUL else REPLY_SECONDS)
        while not self._round_is_over() and time.monotonic() < until and not self.launcher.stop.immediate:
            self._receive_stop()
            await asyncio.sleep(POLL_SECONDS)
        if result == ExitReason.USER_ERROR:
            return result, message
        if self.client.result in SUCCESSFUL:
            return result if result in SUCCESSFUL else self.client.result, ""
        if result == ExitReason.STOPPED and self.launcher.stop.requested:
            return result, ""  # a node that did not stop reports so itself
        if self.client.result is None:
            # node 0 is gone; processes that stopped although nobody asked were stopped by its launcher's end
            return (ExitReason.FAILED, "node 0 disconnected") if result == ExitReason.STOPPED else (result, message)
        return self.client.result, self.client.message

    def _round_is_over(self) -> bool:
        """Whether the round has ended on the other nodes, or node 0 is gone."""
        return self.client is not None and (self.client.disconnected or self.client.result is not None)

    def _report(self, result: ExitReason, ranks: str = "", message: str = "", stopped_at_start: bool = False) -> None:
        if self.client:
            self.client.report_end(result, ranks, message, stopped_at_start)

    def _receive_stop(self) -> None:
        if self.client and self.client.stop_requested:
            self.launcher.stop.record(signal.SIGTERM)

    def _forward_stop(self, agent: subprocess.Popen[bytes]) -> None:
        """SIGTERM to the ranks, not to the agent: the agent would report a failure whatever they do."""
        self._receive_stop()
        if self.options.processes == 1:
            self._ranks = {0: psutil.Process(agent.pid)}
        elif len(self._ranks) < self.options.processes_per_node:
            found = child_ranks(psutil.Process(agent.pid))
            # the agent, which polls every 1.5 s, discards their exit codes
            watch_exits({rank: found[rank] for rank in found.keys() - self._ranks.keys()}, self._exit_codes.__setitem__)
            self._ranks |= found
        if not self.launcher.stop.requested or self.launcher.stop.forwarded:
            return
        self.launcher.stop.forwarded = True
        if self.client:
            self.client.request_stop()
        complete = len(self._ranks) == self.options.processes_per_node
        send_signal(signal.SIGTERM, self._ranks.values() if complete else [psutil.Process(agent.pid)])
        self._kill_within(self.options.grace_seconds)

    def _kill_within(self, seconds: float) -> None:
        self._kill_at = min(self._kill_at, time.monotonic() + seconds)


def launch_node(options: NodeOptions, restarted_before: int | None = None) -> int:
    """Launch this node's part of a run, and return the exit status.

    Args:
        restarted_before: how often whoever starts the launchers has restarted them; read from the environment if None.

    Raises:
        UserError: node 0 cannot listen at its port.
    """
    if options.dry_run:
        print(shlex.join(node_command(options, options.main_port if options.nodes > 1 else 0)))
        return 0
    if restarted_before is None:
        restarted_before = restart_count()
    adopt_orphans()
    return asyncio.run(NodeLauncher(options, restarted_before).run())


def make_parser(program: str, description: str) -> LauncherParser:
    """A parser of a node's options."""
    parser = LauncherParser(
        prog=program,
        usage=f"{program} [options] recipes/pvdgan.py [key=value …]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser)
    return parser


def exit_with(command: Callable[[], int]) -> NoReturn:
    """Exit with the status that a command returns; with 2 and one line for an error that the user must fix."""
    try:
        status = command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        status = 2
    raise SystemExit(status)


def main() -> NoReturn:
    """The command line."""
    parser = make_parser("python -m latentscale.launching.node", __doc__ or "")
    exit_with(lambda: launch_node(make_options(vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
