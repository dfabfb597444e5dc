"""A network of machines inside this one: namespaces joined by a bridge, whose links can be cut and slowed.

Every machine is a process that does nothing, with network, mount, host name and process-id namespaces of its own
(Linux, root, iproute2 and util-linux). The bridge stands in a namespace too, so that nothing is seen on, or reaches,
this machine's own network. The kernel removes a namespace with its last process, and ends all processes of a machine
with its first one; it is told to end that one when ours ends, however it does, so that nothing is ever left.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from latentscale.errors import UserError
from latentscale.launching.workers import die_with_parent, kill_all_below

_TOOLS = ("ip", "tc", "unshare", "nsenter", "mount")
# the first process of a machine: it reaps what others leave
_IDLE = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print(flush=True); signal.pause()"


def why_not() -> str | None:
    """Why there can be no such network here, or None."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        return f"{', '.join(missing)} not found: install iproute2 and util-linux"
    probe = subprocess.run(["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "true"], capture_output=True)
    return None if probe.returncode == 0 else f"this kernel refuses namespaces ({probe.stderr.decode().strip()})"


class Namespaces:
    """The namespaces of one machine, and the process that holds them.

    Args:
        flags: of ``unshare``, which namespaces are its own.
    """

    def __init__(self, *flags: str) -> None:
        self._flags = tuple(flag for flag in flags if not flag.startswith("--mount-"))
        self._holder = subprocess.Popen(
            ["unshare", *flags, "--fork", "--kill-child", sys.executable, "-I", "-S", "-c", _IDLE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():
            _, said = self._holder.communicate()
            raise UserError(f"a namespace could not be made: {said.decode().strip()}")
        self.first = psutil.Process(self._holder.pid).children()[0]

    def inside(self, command: Sequence[str]) -> list[str]:
        """The argv that runs a command in there, in this process' folder."""
        enter = ["nsenter", "--target", str(self.first.pid), *self._flags, "--"]
        return [*enter, "env", f"--chdir={Path.cwd()}", *command]

    def do(self, *command: str) -> None:
        """Run a short command in there.

        Raises:
            UserError: where it fails, with what it said.
        """
        done = subprocess.run(self.inside(command), capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise UserError(f"'{' '.join(command)}' failed: {done.stderr.strip() or f'status {done.returncode}'}")

    def processes(self) -> list[psutil.Process]:
        """All that runs in there, but for the first."""
        own = self._identity(self.first.pid)
        found = [process for process in psutil.process_iter() if self._identity(process.pid) == own]
        return [process for process in found if process.pid != self.first.pid]

    def end(self) -> None:
        """SIGKILL to everything in there; the namespaces go with it."""
        kill_all_below(psutil.Process(self._holder.pid))
        self._holder.kill()
        self._holder.communicate()

    @staticmethod
    def _identity(pid: int) -> str | None:
        try:
            return str(Path(f"/proc/{pid}/ns/net").readlink())
        except OSError:
            return None


class Machine:
    """A machine of the network, with its cable into the bridge.

    Attributes:
        name: its host name.
        address: IPv4, of its one interface, eth0.
    """

    def __init__(self, bridge: "Bridge", port: int, name: str, address: str, hosts: Path) -> None:
        self.name, self.address = name, address
        self._bridge, self._port, self._cable = bridge, port, f"cable{port}"
        self._namespaces = Namespaces("--net", "--mount", "--uts", "--pid", "--mount-proc")
        try:
            self._wire(hosts)
        except BaseException:
            self.end()
            raise

    def _wire(self, hosts: Path) -> None:
        peer = f"peer name eth0 netns {self._namespaces.first.pid}"
        for command in (
            f"ip link add {self._cable} type veth {peer}",
            f"ip link set {self._cable} master bridge up",
        ):
            self._bridge.namespaces.do(*command.split())
        for command in (
            "ip link set lo up",
            # the same after a reboot: neighbours remember it
            f"ip link set eth0 address 02:00:00:00:00:{self._port:02x}",
            f"ip address add {self.address}/24 dev eth0",
            "ip link set eth0 up",
            f"hostname {self.name}",
            f"mount --bind {hosts} /etc/hosts",
        ):
            self._namespaces.do(*command.split())
        if Path("/etc/resolv.conf").exists():
            # names that are not among the hosts are not asked for elsewhere
            self._namespaces.do("mount", "--bind", "/dev/null", "/etc/resolv.conf")

    def inside(self, command: Sequence[str]) -> list[str]:
        """The argv that runs a command on this machine."""
        return self._namespaces.inside(command)

    def processes(self) -> list[psutil.Process]:
        """What runs there."""
        return self._namespaces.processes()

    def end(self) -> None:
        """Everything on it ends by SIGKILL, and its place in the bridge is free."""
        self._namespaces.end()
        self._bridge.forget(self._cable)

    def cut(self) -> None:
        """Pull the cable: nothing comes or goes, and nobody is told."""
        self._bridge.namespaces.do("ip", "link", "set", self._cable, "down")

    def mend(self) -> None:
        """Put the cable in again."""
        self._bridge.namespaces.do("ip", "link", "set", self._cable, "up")

    def limit(self, bits_per_second: float | None, delay_seconds: float = 0.0) -> None:
        """Slow the cable, both ways; None and 0 for as it was.

        Args:
            bits_per_second: what it carries.
            delay_seconds: each way; needs a kernel with netem.

        Raises:
            UserError: where the kernel has no such queue.
        """
        ends = ((self._bridge.namespaces, self._cable), (self._namespaces, "eth0"))
        for namespaces, device in ends:
            subprocess.run(namespaces.inside(["tc", "qdisc", "del", "dev", device, "root"]), capture_output=True)
        if delay_seconds:
            rate = ["rate", f"{bits_per_second:.0f}bit"] if bits_per_second else []
            queue = ["netem", "delay", f"{delay_seconds * 1e3:.3f}ms", *rate]
        elif bits_per_second:
            # a burst of what a scheduler's tick lets through, and at least a few packets
            burst = max(16_000, round(bits_per_second / 8 / 250))
            queue = ["tbf", "rate", f"{bits_per_second:.0f}bit", "burst", f"{burst}", "latency", "400ms"]
        else:
            return
        for namespaces, device in ends:
            namespaces.do("tc", "qdisc", "add", "dev", device, "root", *queue)


class Bridge:
    """The switch that all cables end in."""

    def __init__(self) -> None:
        self.namespaces = Namespaces("--net")
        self.namespaces.do("ip", "link", "add", "bridge", "type", "bridge")
        self.namespaces.do("ip", "link", "set", "bridge", "up")

    def forget(self, cable: str) -> None:
        """Remove what is left of a cable."""
        subprocess.run(self.namespaces.inside(["ip", "link", "delete", cable]), capture_output=True)

    def end(self) -> None:
        """Take it away."""
        self.namespaces.end()


def kernel_has_delays() -> bool:
    """Whether the kernel has netem, tried in a namespace of its own."""
    command = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(command, capture_output=True).returncode == 0
