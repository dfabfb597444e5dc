"""One network namespace per process, each on a link of known bandwidth; the host's own network is untouched.

Needs root, iproute2 and a kernel with veth, bridge and tbf. What was made is removed at the end, and what a killed
process left behind is removed by the next one that asks for links.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREFIX = "latentscale-bench"
INTERFACE = "uplink"
# the largest packet of a jumbo frame, with Ethernet's own 14 bytes: headers are then under one percent
MTU_BYTES = 9000
BURST_BYTES = 16 * 1024


@dataclass(frozen=True)
class Place:
    """Where a process runs.

    Attributes:
        address: at which others reach it.
        interface: that its collectives use.
        enter: what stands before its command.
        slowed: whether its link has the bandwidth that was asked for.
    """

    address: str
    interface: str
    enter: tuple[str, ...] = ()
    slowed: bool = False


def loopback_places(count: int) -> list[Place]:
    """All processes on the host's own loopback, as fast as it is."""
    return [Place("127.0.0.1", "lo")] * count


def why_no_links() -> str:
    """Why links cannot be made here; empty if they can."""
    if os.geteuid() != 0:
        return "slowing the network needs root"
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        return f"slowing the network needs {' and '.join(missing)} of iproute2"
    try:
        with links(1, 1e8):
            return ""
    except LinksError as error:
        return f"the network cannot be slowed here: {error}"


class LinksError(Exception):
    """A link could not be made."""


@contextmanager
def links(count: int, bits_per_second: float) -> Iterator[list[Place]]:
    """Namespaces with one link each of limited bandwidth; all are removed at the end.

    Raises:
        LinksError: with what the system said.
    """
    remove_left_behind()
    own = f"{PREFIX}-{os.getpid()}"
    hub, names = f"{own}-hub", [f"{own}-{number}" for number in range(count)]
    try:
        _ip("netns", "add", hub)
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", hub, "link", "set", "bridge", "mtu", str(MTU_BYTES), "up")
        for number, name in enumerate(names):
            port = f"port{number}"
            _ip("netns", "add", name)
            _ip(
                "-n",
                hub,
                "link",
                "add",
                port,
                "mtu",
                str(MTU_BYTES),
                "type",
                "veth",
                "peer",
                "name",
                INTERFACE,
                "netns",
                name,
            )
            _ip("-n", hub, "link", "set", port, "mtu", str(MTU_BYTES), "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"10.78.0.{number + 1}/24", "dev", INTERFACE)
            _ip("-n", name, "link", "set", INTERFACE, "mtu", str(MTU_BYTES), "up")
            _ip("-n", name, "link", "set", "lo", "up")
            _run(
                "tc", "-n", name, "qdisc", "add", "dev", INTERFACE, "root", "tbf",
                "rate", f"{bits_per_second:.0f}bit", "burst", str(BURST_BYTES), "latency", "1s",
            )  # fmt: skip
        yield [
            Place(f"10.78.0.{number + 1}", INTERFACE, ("ip", "netns", "exec", name), slowed=True)
            for number, name in enumerate(names)
        ]
    finally:
        _remove([*names, hub])


def ours() -> list[str]:
    """Names of the namespaces that this module made and that are there, of any process."""
    folder = Path("/run/netns")
    return sorted(entry.name for entry in folder.glob(f"{PREFIX}-*")) if folder.is_dir() else []


def remove_left_behind() -> None:
    """Remove the namespaces of processes that have ended."""
    _remove([name for name in ours() if not Path(f"/proc/{name.split('-')[2]}").exists()])


def _remove(names: Sequence[str]) -> None:
    # a second Ctrl-C must not leave half of them
    before = signal.getsignal(signal.SIGINT)
    in_main_thread = _set_interrupt(signal.SIG_IGN)
    try:
        for name in names:
            if Path("/run/netns", name).exists():
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, before)


def _set_interrupt(handler: signal.Handlers) -> bool:
    try:
        signal.signal(signal.SIGINT, handler)
    except ValueError:  # only the main thread may
        return False
    return True


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise LinksError(f"'{' '.join(command)}': {done.stderr.strip() or done.returncode}")
