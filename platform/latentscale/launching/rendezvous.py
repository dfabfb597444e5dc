"""Rendezvous of a run's node launchers at node 0, which starts them together and reports failures to all.

torchelastic's own static rendezvous cannot tell one start of the processes from the next: a node that returns early
joins what is left of the previous one. So each launcher keeps a connection to node 0's launcher, with one line of JSON
per message, and each start is a *round* with its own number and port. A node is

- *waiting* from its hello message until all nodes have joined; then each is sent the round;
- *running* until it reports how its processes ended, or its connection closes. Once one node has failed or has a user
  error, or all have ended successfully, node 0 tells all nodes that the round is over.
"""

import asyncio
import contextlib
import json
import random
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentscale.errors import UserError
from latentscale.launching.exit_reports import ExitReason
from latentscale.launching.node_options import NodeOptions, flag

# below those that Linux gives to outgoing connections
_PORTS = range(20000, 32000)
_SHARED_OPTIONS = ("nodes", "processes_per_node", "max_restarts")
_LOOPBACK = ("localhost", "127.", "::1")


def free_port() -> int:
    """A TCP port of this machine at which nothing listens."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            return port


NO_REPORT = "ended without reporting why"
NODE_LOSSES = DISCONNECTED, RESTARTED = "disconnected", "its launcher was restarted"
CAUSE_WAIT_SECONDS = 5.0
"""From the first reported failure to the end of the round, if some nodes have not reported yet."""
REJOIN_SECONDS = 15.0
"""For a node to get from the end of a round to the beginning of the next."""
REJOIN_GAP_SECONDS = 1.0
"""Of these, between its two connections."""


@dataclass(frozen=True)
class NodeFailure:
    """Why a node's processes did not end successfully.

    Attributes:
        node: its rank.
        ranks: the process or processes that report the failure, such as ``rank 3``; empty for the node itself.
        message: a few words.
    """

    node: int
    ranks: str
    message: str

    @property
    def source(self) -> str:
        """The node, and the processes if it is they that failed."""
        return f"node {self.node}: {self.ranks}" if self.ranks else f"node {self.node}"


def likely_causes(failures: Sequence[NodeFailure], most: int = 2) -> str:
    """One line with the messages that the fewest nodes report: many report lost contact, but only one a full disk.

    Args:
        failures: of one round, in the order in which they were reported.
        most: at most this many messages, and sources of each.
    """
    sources: dict[str, list[str]] = {}
    for failure in failures:
        sources.setdefault(failure.message, []).append(failure.source)
    rarest = sorted(
        sources, key=lambda message: (len(sources[message]), message not in NODE_LOSSES, message != NO_REPORT)
    )
    lines = []
    for message in rarest[:most]:
        further = len(sources[message]) - most
        shown = sources[message][:most] + ([f"{further} more"] if further > 0 else [])
        lines.append(f"{' and '.join(shown)}: {message}")
    return "; ".join(lines)


class Connection:
    """A TCP connection that carries one JSON object per line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        # a node without power sends nothing: the connection to it closes after about ten minutes, not never
        tcp = writer.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            for option, value in (
                (socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 30), (socket.TCP_KEEPCNT, 20),
            ):  # fmt: skip
                tcp.setsockopt(socket.IPPROTO_TCP, option, value)

    def send(self, **message: Any) -> None:
        """Send without waiting; does nothing on a closed connection."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None at the end of the connection, or where a line is not a message."""
        try:
            line = await self._reader.readline()
            message = json.loads(line)
        except (OSError, ValueError, asyncio.LimitOverrunError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Close after everything has been sent."""
        self._writer.close()


class RendezvousServer:
    """Node 0's side.

    Args:
        options: node 0's; those that all nodes must share are compared.
    """

    def __init__(self, options: NodeOptions) -> None:
        self._options = options
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._waiting: dict[int, Connection] = {}
        self._running: dict[int, Connection] = {}
        self._ended: dict[int, ExitReason] = {}
        self._failures: list[NodeFailure] = []
        self._hosts: dict[int, object] = {}
        self._user_error, self._stopping, self._stopped_at_start = "", False, False
        self._rounds = 0

    async def open(self) -> None:
        """Listen.

        Raises:
            UserError: the port is taken.
        """
        here = "127.0.0.1" if self._options.main_address.startswith(_LOOPBACK) else None
        try:
            self._server = await asyncio.start_server(self._serve, here, self._options.main_port)
        except OSError as error:
            raise UserError(
                f"--main-port {self._options.main_port}: node 0 cannot listen on this port ({error.strerror}): choose"
                " another"
            ) from None

    @property
    def stopping(self) -> bool:
        """Whether some node was asked to stop."""
        return self._stopping

    async def stop_all(self) -> None:
        """Stop all nodes before a round begins: those that wait, and those that still return from the last round."""
        self._stopping = True
        self._send_to_all(stop=True)
        until = last = time.monotonic()
        until += REJOIN_SECONDS
        while time.monotonic() < min(until, last + REJOIN_GAP_SECONDS):
            await asyncio.sleep(0.05)
            if self._connections:
                last = time.monotonic()

    async def close(self) -> None:
        """Close all connections, once the last messages are sent."""
        if self._server:
            self._server.close()
        for connection in self._connections:
            connection.close()
        await asyncio.sleep(0.1)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        self._connections.add(connection)
        try:
            await self._serve_node(connection)
        except asyncio.CancelledError:
            pass  # the launcher ends; asyncio would print a traceback
        finally:
            connection.close()
            self._connections.discard(connection)

    async def _serve_node(self, connection: Connection) -> None:
        hello = await connection.receive()
        node = hello.get("node") if hello else None
        if not hello or not isinstance(node, int) or node < 0 or not isinstance(hello.get("rounds"), int):
            return
        if error := self._user_error or self._check_hello(node, hello):
            connection.send(result=ExitReason.USER_ERROR, message=error)
            if not self._running:  # an unknown launcher does not end a run that is in progress
                self._user_error = error
                self._send_to_all(result=ExitReason.USER_ERROR, message=error)
            return
        self._rounds = max(self._rounds, hello["rounds"])
        if node in self._running:
            self._drop_node(node, RESTARTED)
        if node in self._waiting:
            self._waiting[node].send(
                result=ExitReason.USER_ERROR, message=f"another launcher joined with --node-rank {node}"
            )
        if self._stopping:
            connection.send(stop=True)
        self._waiting[node] = connection
        self._hosts[node] = hello.get("host")
        self._start_round_if_complete()
        while message := await connection.receive():
            if message.get("stop"):
                self._stopping = True
                self._send_to_all(stop=True)
            if "ended" in message and self._running.get(node) is connection:
                failure = NodeFailure(node, str(message.get("ranks", "")), str(message.get("message", "")))
                self._stopped_at_start |= bool(message.get("stopped_at_start"))
                self._record_end(node, ExitReason(message["ended"]), failure)
        if self._waiting.get(node) is connection:
            del self._waiting[node]
            self._send_missing()
        if self._running.get(node) is connection:
            if node in self._ended:
                del self._running[node]
            else:
                self._drop_node(node, DISCONNECTED)

    def _check_hello(self, node: int, hello: Mapping[str, Any]) -> str | None:
        # from the same machine it is a launcher that was restarted
        if node in self._waiting and self._hosts.get(node) != hello.get("host"):
            return f"two launchers have --node-rank {node}: give each node its own"
        for name in _SHARED_OPTIONS:
            ours = getattr(self._options, name)
            if hello.get(name) != ours:
                return (
                    f"node {node} has {flag(name)} {hello.get(name)} but node 0 has {ours}: give all nodes the same"
                    " value"
                )
        if node >= self._options.nodes:
            return f"--node-rank {node}: there are {self._options.nodes} nodes"
        return None

    def _start_round_if_complete(self) -> None:
        if self._running or not self._waiting:
            return
        if len(self._waiting) < self._options.nodes:
            self._send_missing()
            return
        self._rounds += 1
        self._running, self._waiting, self._ended, self._failures = self._waiting, {}, {}, []
        port = free_port()
        for connection in self._running.values():
            connection.send(round=self._rounds, port=port)

    def _send_missing(self) -> None:
        missing = sorted(set(range(self._options.nodes)) - self._waiting.keys())
        for connection in self._waiting.values():
            connection.send(missing=missing)

    def _record_end(self, node: int, reason: ExitReason, failure: NodeFailure) -> None:
        # rank 0 reports that it has finished once the last checkpoint and the model are written: nothing is left to do
        if reason == ExitReason.FAILED and self._ended.get(0) == ExitReason.FINISHED:
            reason = ExitReason.FINISHED
        self._ended[node] = reason
        if reason == ExitReason.USER_ERROR:
            self._end_round(reason, f"{failure.source}: {failure.message}")
        elif reason == ExitReason.FAILED:
            self._failures.append(failure)
            # the cause may be reported after the failures of those that only lost contact with it
            if len(self._failures) == 1:
                asyncio.get_running_loop().call_later(CAUSE_WAIT_SECONDS, self._end_failed_round, self._rounds)
        if self._failures and len(self._ended) == self._options.nodes:
            self._end_failed_round(self._rounds)
        elif len(self._ended) == self._options.nodes:
            self._end_round(ExitReason.FINISHED, "")

    def _drop_node(self, node: int, message: str) -> None:
        self._running.pop(node).close()
        self._record_end(node, ExitReason.FAILED, NodeFailure(node, "", message))

    def _end_failed_round(self, round_number: int) -> None:
        if round_number == self._rounds and self._running:
            if self._stopped_at_start:
                # the others lost contact with processes that a request to stop ended at their start
                self._end_round(ExitReason.STOPPED, "")
            else:
                self._end_round(ExitReason.FAILED, likely_causes(self._failures))

    def _end_round(self, result: ExitReason, message: str) -> None:
        running, self._running = self._running, {}
        for connection in running.values():
            connection.send(result=result, message=message)
        self._start_round_if_complete()

    def _send_to_all(self, **message: Any) -> None:
        for connection in (*self._waiting.values(), *self._running.values()):
            connection.send(**message)


class RendezvousClient:
    """A node's side, for one round: it has sent hello, and holds what node 0 has sent since.

    Attributes:
        round, port: of the round, once all nodes have joined; 0 before.
        missing: nodes that have not joined.
        result: how the round ended for all nodes, once it has: FINISHED for success, STOPPED where it was stopped at
            its start.
        message: why, unless it was successful.
        stop_requested: some node was asked to stop.
        disconnected: the connection has closed.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.round = self.port = 0
        self.missing: list[int] = []
        self.result: ExitReason | None = None
        self.message = ""
        self.stop_requested = self.disconnected = False
        self._receiving = asyncio.create_task(self._receive())

    @classmethod
    async def connect(cls, options: NodeOptions, rounds: int, timeout_seconds: float = 2.0) -> "RendezvousClient":
        """Connect to node 0 and send hello.

        Args:
            rounds: number of the last round that this node took part in.

        Raises:
            OSError: node 0 does not reply in time.
        """
        address = options.main_address
        if options.node_rank == 0:
            address = "127.0.0.1"
        async with asyncio.timeout(timeout_seconds):
            connection = Connection(*await asyncio.open_connection(address, options.main_port))
        shared = {name: getattr(options, name) for name in _SHARED_OPTIONS}
        connection.send(node=options.node_rank, host=socket.gethostname(), rounds=rounds, **shared)
        return cls(connection)

    def report_end(self, reason: ExitReason, ranks: str, message: str, stopped_at_start: bool) -> None:
        """Report to node 0 how this node's processes ended; unless successful, also which processes and why.

        Args:
            stopped_at_start: a request to stop ended some of them before they could report.
        """
        self._connection.send(ended=reason, ranks=ranks, message=message, stopped_at_start=stopped_at_start)

    def request_stop(self) -> None:
        """Ask all nodes to stop."""
        self._connection.send(stop=True)

    def close(self) -> None:
        """Close the connection."""
        self._receiving.cancel()
        self._connection.close()

    async def _receive(self) -> None:
        handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "round": self._set_round,
            "missing": lambda message: setattr(self, "missing", message["missing"]),
            "result": self._set_result,
            "stop": lambda message: setattr(self, "stop_requested", True),
        }
        while message := await self._connection.receive():
            for name in message.keys() & handlers.keys():
                handlers[name](message)
        self.disconnected = True

    def _set_round(self, message: dict[str, Any]) -> None:
        self.round, self.port = message["round"], message["port"]

    def _set_result(self, message: dict[str, Any]) -> None:
        self.result, self.message = ExitReason(message["result"]), message["message"]
