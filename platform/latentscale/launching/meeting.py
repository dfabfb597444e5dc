"""How the launchers of a run's nodes meet: at node 0, which counts them, starts them together and tells of losses.

torchelastic's own meeting by address and port does not know one start of the gang from the next: a node that
comes back early meets what is left of the old one. So launchers keep a connection to node 0's launcher, a line of
JSON a message, and every start is a *round* with a number and a port of its own. A node is

- *waiting* from its hello until all nodes do; then each is told the round;
- *running* until it says how its processes ended, or its connection ends. Once one is lost or refused, or all have
  ended well, all are told that the round is over.
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
from latentscale.launching.endings import Ending
from latentscale.launching.options import NodeOptions, flag

# below those that Linux gives to outgoing connections
_PORTS = range(20000, 32000)
_WELL = (Ending.FINISHED, Ending.STOPPED)
_SAME = ("nodes", "processes_per_node", "max_restarts")
_LOOPBACK = ("localhost", "127.", "::1")


def free_port() -> int:
    """A TCP port of this machine at which nothing listens."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            return port


WORDLESS = "ended without a word"
LOST_NODE = GONE, STARTED_AGAIN = "has gone", "has started again"
CAUSE_SECONDS = 5.0
"""From the first word of a loss to the end of the round, where not all nodes have said theirs."""
RETURN_SECONDS = 15.0
"""For a node to come from the end of a round to the next one's beginning."""
GAP_SECONDS = 1.0
"""Of these, between its connections."""


@dataclass(frozen=True)
class Loss:
    """Why a node's processes did not end well.

    Attributes:
        node: which.
        where: the rank or ranks that say so; empty for the node itself.
        reason: in a few words.
    """

    node: int
    where: str
    reason: str

    @property
    def place(self) -> str:
        """Node, and ranks where it is they."""
        return f"node {self.node}: {self.where}" if self.where else f"node {self.node}"


def likely_causes(losses: Sequence[Loss], most: int = 2) -> str:
    """One line of what fewest nodes say: that others are gone is said by many, that a disk is full by one.

    Args:
        losses: of one round, in the order in which they were told.
        most: so many reasons, and places of each.
    """
    places: dict[str, list[str]] = {}
    for loss in losses:
        places.setdefault(loss.reason, []).append(loss.place)
    rarest = sorted(places, key=lambda reason: (len(places[reason]), reason not in LOST_NODE, reason != WORDLESS))
    lines = []
    for reason in rarest[:most]:
        further = len(places[reason]) - most
        shown = places[reason][:most] + ([f"{further} more"] if further > 0 else [])
        lines.append(f"{' and '.join(shown)}: {reason}")
    return "; ".join(lines)


class Line:
    """A connection that carries one JSON object a line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        # a node without power sends nothing: the connection to it ends after some ten minutes, not never
        carrier = writer.get_extra_info("socket")
        carrier.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            for option, value in (
                (socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 30), (socket.TCP_KEEPCNT, 20),
            ):  # fmt: skip
                carrier.setsockopt(socket.IPPROTO_TCP, option, value)

    def send(self, **message: Any) -> None:
        """Send without waiting; to a closed connection nothing is sent."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next message, or None at the end; what is no message ends it too."""
        try:
            line = await self._reader.readline()
            message = json.loads(line)
        except (OSError, ValueError, asyncio.LimitOverrunError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Close after what was sent."""
        self._writer.close()


class Meeting:
    """Node 0's side.

    Args:
        options: node 0's; those that all nodes must share are compared.
    """

    def __init__(self, options: NodeOptions) -> None:
        self._options = options
        self._server: asyncio.Server | None = None
        self._lines: set[Line] = set()
        self._waiting: dict[int, Line] = {}
        self._running: dict[int, Line] = {}
        self._ended: dict[int, Ending] = {}
        self._losses: list[Loss] = []
        self._hosts: dict[int, object] = {}
        self._refused, self._stopping, self._cut = "", False, False
        self._rounds = 0

    async def open(self) -> None:
        """Listen.

        Raises:
            UserError: where the port is taken.
        """
        here = "127.0.0.1" if self._options.main_address.startswith(_LOOPBACK) else None
        try:
            self._server = await asyncio.start_server(self._attend, here, self._options.main_port)
        except OSError as error:
            raise UserError(
                f"--main-port {self._options.main_port}: node 0 cannot listen there ({error.strerror}): choose another"
            ) from None

    @property
    def stopping(self) -> bool:
        """Whether some node was asked to stop."""
        return self._stopping

    async def dismiss(self) -> None:
        """Tell all to stop before a round begins: those who wait, and those who still come from the last round."""
        self._stopping = True
        self._tell_all(stop=True)
        until = last = time.monotonic()
        until += RETURN_SECONDS
        while time.monotonic() < min(until, last + GAP_SECONDS):
            await asyncio.sleep(0.05)
            if self._lines:
                last = time.monotonic()

    async def close(self) -> None:
        """Leave, once what was said last is sent; connections end."""
        if self._server:
            self._server.close()
        for line in self._lines:
            line.close()
        await asyncio.sleep(0.1)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(reader, writer)
        self._lines.add(line)
        try:
            await self._listen(line)
        except asyncio.CancelledError:
            pass  # the launcher ends; asyncio would write a page of it
        finally:
            line.close()
            self._lines.discard(line)

    async def _listen(self, line: Line) -> None:
        hello = await line.receive()
        node = hello.get("node") if hello else None
        if not hello or not isinstance(node, int) or node < 0 or not isinstance(hello.get("rounds"), int):
            return
        if refusal := self._refused or self._refusal(node, hello):
            line.send(over=Ending.REFUSED, reason=refusal)
            if not self._running:  # a run that is on its way is not ended by a stranger
                self._refused = refusal
                self._tell_all(over=Ending.REFUSED, reason=refusal)
            return
        self._rounds = max(self._rounds, hello["rounds"])
        if node in self._running:
            self._lose(node, STARTED_AGAIN)
        if node in self._waiting:
            self._waiting[node].send(over=Ending.REFUSED, reason=f"another launcher says --node-rank {node}")
        if self._stopping:
            line.send(stop=True)
        self._waiting[node] = line
        self._hosts[node] = hello.get("host")
        self._begin_if_complete()
        while message := await line.receive():
            if message.get("stop"):
                self._stopping = True
                self._tell_all(stop=True)
            if "ended" in message and self._running.get(node) is line:
                loss = Loss(node, str(message.get("where", "")), str(message.get("reason", "")))
                self._cut |= bool(message.get("wordless"))
                self._end(node, Ending(message["ended"]), loss)
        if self._waiting.get(node) is line:
            del self._waiting[node]
            self._tell_missing()
        if self._running.get(node) is line:
            if node in self._ended:
                del self._running[node]
            else:
                self._lose(node, GONE)

    def _refusal(self, node: int, hello: Mapping[str, Any]) -> str | None:
        # from the same machine it is a launcher that was started again
        if node in self._waiting and self._hosts.get(node) != hello.get("host"):
            return f"two launchers say --node-rank {node}: give each node its own"
        for name in _SAME:
            ours = getattr(self._options, name)
            if hello.get(name) != ours:
                return f"node {node} was given {flag(name)} {hello.get(name)} and node 0 {ours}: give all the same"
        if node >= self._options.nodes:
            return f"--node-rank {node}: there are {self._options.nodes} nodes"
        return None

    def _begin_if_complete(self) -> None:
        if self._running or not self._waiting:
            return
        if len(self._waiting) < self._options.nodes:
            self._tell_missing()
            return
        self._rounds += 1
        self._running, self._waiting, self._ended, self._losses = self._waiting, {}, {}, []
        port = free_port()
        for line in self._running.values():
            line.send(round=self._rounds, port=port)

    def _tell_missing(self) -> None:
        missing = sorted(set(range(self._options.nodes)) - self._waiting.keys())
        for line in self._waiting.values():
            line.send(missing=missing)

    def _end(self, node: int, ending: Ending, loss: Loss) -> None:
        # rank 0 says that it has finished once the last checkpoint and the model stand: nothing is left to repeat
        if ending == Ending.LOST and self._ended.get(0) == Ending.FINISHED:
            ending = Ending.FINISHED
        self._ended[node] = ending
        if ending == Ending.REFUSED:
            self._over(ending, f"{loss.place}: {loss.reason}")
        elif ending == Ending.LOST:
            self._losses.append(loss)
            # the cause may be told after those who only lost contact with it
            if len(self._losses) == 1:
                asyncio.get_running_loop().call_later(CAUSE_SECONDS, self._over_by_loss, self._rounds)
        if self._losses and len(self._ended) == self._options.nodes:
            self._over_by_loss(self._rounds)
        elif len(self._ended) == self._options.nodes:
            self._over(Ending.FINISHED, "")

    def _lose(self, node: int, reason: str) -> None:
        self._running.pop(node).close()
        self._end(node, Ending.LOST, Loss(node, "", reason))

    def _over_by_loss(self, rounds: int) -> None:
        if rounds == self._rounds and self._running:
            if self._cut:
                # what a request to stop has ended before it began is what the others lost contact with
                self._over(Ending.STOPPED, "")
            else:
                self._over(Ending.LOST, likely_causes(self._losses))

    def _over(self, ending: Ending, reason: str) -> None:
        running, self._running = self._running, {}
        for line in running.values():
            line.send(over=ending, reason=reason)
        self._begin_if_complete()

    def _tell_all(self, **message: Any) -> None:
        for line in (*self._waiting.values(), *self._running.values()):
            line.send(**message)


class Seat:
    """A node's side, for one round: said hello, and what node 0 has told since.

    Attributes:
        round, port: of the round, once all have come; 0 before.
        missing: nodes that have not come.
        over: how the round ended for all (finished stands for well, stopped for stopped before it began), once it has.
        reason: why, where not well.
        stop: some node was asked to stop.
        gone: the connection has ended.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self.round = self.port = 0
        self.missing: list[int] = []
        self.over: Ending | None = None
        self.reason = ""
        self.stop = self.gone = False
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def take(cls, options: NodeOptions, rounds: int, timeout_seconds: float = 2.0) -> "Seat":
        """Connect to node 0 and say hello.

        Args:
            rounds: number of the last round that this node took part in.

        Raises:
            OSError: where node 0 is not reached in time.
        """
        here = options.main_address
        if options.node_rank == 0:
            here = "127.0.0.1"
        async with asyncio.timeout(timeout_seconds):
            line = Line(*await asyncio.open_connection(here, options.main_port))
        same = {name: getattr(options, name) for name in _SAME}
        line.send(node=options.node_rank, host=socket.gethostname(), rounds=rounds, **same)
        return cls(line)

    def tell_ended(self, ending: Ending, where: str, reason: str, wordless: bool) -> None:
        """Tell node 0 how this node's processes ended; where not well, which and why.

        Args:
            wordless: a request to stop has ended some of them before they could say so.
        """
        self._line.send(ended=ending, where=where, reason=reason, wordless=wordless)

    def ask_stop(self) -> None:
        """Ask all nodes to stop."""
        self._line.send(stop=True)

    def leave(self) -> None:
        """Close the connection."""
        self._listening.cancel()
        self._line.close()

    async def _listen(self) -> None:
        takers: dict[str, Callable[[dict[str, Any]], None]] = {
            "round": self._take_round,
            "missing": lambda message: setattr(self, "missing", message["missing"]),
            "over": self._take_over,
            "stop": lambda message: setattr(self, "stop", True),
        }
        while message := await self._line.receive():
            for name in message.keys() & takers.keys():
                takers[name](message)
        self.gone = True

    def _take_round(self, message: dict[str, Any]) -> None:
        self.round, self.port = message["round"], message["port"]

    def _take_over(self, message: dict[str, Any]) -> None:
        self.over, self.reason = Ending(message["over"]), message["reason"]
