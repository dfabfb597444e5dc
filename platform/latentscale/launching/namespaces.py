"""A network of virtual machines on this one: namespaces joined by a bridge, whose links can be cut and slowed.

Every machine is an idle process with its own network, mount, host name and process-id namespaces (Linux, root, iproute2
and util-linux). The bridge has a namespace too, so that this machine's own network neither sees nor reaches anything.
The kernel removes a namespace with its last process, and kills all processes of a machine with its first one. It also
kills that first process when ours ends, however it ends, so nothing is ever left behind.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from latentscale.errors import UserError
from latentscale.launching.process_tree import kill_descendants, kill_with_parent

_TOOLS = ("ip", "tc", "unshare", "nsenter", "mount")
# the first process of a machine: it reaps orphans
_IDLE = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print(flush=True); signal.pause()"


def unavailable_reason() -> str | None:
    """Why such a network cannot be made here, or None."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        return f"{', '.join(missing)} not found: install iproute2 and util-linux"
    probe = subprocess.run(["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "true"], capture_output=True)
    if probe.returncode == 0:
        return None
    return (
        f"namespaces are not allowed here ({probe.stderr.decode().strip()}): they need CAP_SYS_ADMIN, which a container"
        " has with docker run --privileged"
    )


class Namespaces:
    """The namespaces of one machine, and the process that holds them.

    Args:
        flags: of ``unshare``: which namespaces to create.
    """

    def __init__(self, *flags: str) -> None:
        self._flags = tuple(flag for flag in flags if not flag.startswith("--mount-"))
        self._holder = subprocess.Popen(
            ["unshare", *flags, "--fork", "--kill-child", sys.executable, "-I", "-S", "-c", _IDLE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=kill_with_parent,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():
            _, errors = self._holder.communicate()
            raise UserError(f"could not create a namespace: {errors.decode().strip()}")
        self.first = psutil.Process(self._holder.pid).children()[0]

    def inside(self, command: Sequence[str]) -> list[str]:
        """The argv that runs a command inside, in this process's working directory."""
        enter = ["nsenter", "--target", str(self.first.pid), *self._flags, "--"]
        return [*enter, "env", f"--chdir={Path.cwd()}", *command]

    def run(self, *command: str) -> None:
        """Run a short command inside.

        Raises:
            UserError: it failed; with its error output.
        """
        done = subprocess.run(self.inside(command), capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise UserError(f"'{' '.join(command)}' failed: {done.stderr.strip() or f'status {done.returncode}'}")

    def processes(self) -> list[psutil.Process]:
        """All processes inside, except the first."""
        own = self._identity(self.first.pid)
        found = [process for process in psutil.process_iter() if self._identity(process.pid) == own]
        return [process for process in found if process.pid != self.first.pid]

    def end(self) -> None:
        """SIGKILL everything inside; the kernel then removes the namespaces."""
        kill_descendants(psutil.Process(self._holder.pid))
        self._holder.kill()
        self._holder.communicate()

    @staticmethod
    def _identity(pid: int) -> str | None:
        try:
            return str(Path(f"/proc/{pid}/ns/net").readlink())
        except OSError:
            return None


class Machine:
    """A machine of the network, with a cable to the bridge.

    Attributes:
        name: its host name.
        address: IPv4 address of its one interface, eth0.
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
            self._bridge.namespaces.run(*command.split())
        for command in (
            "ip link set lo up",
            # the same after a reboot: neighbours cache it
            f"ip link set eth0 address 02:00:00:00:00:{self._port:02x}",
            f"ip address add {self.address}/24 dev eth0",
            "ip link set eth0 up",
            f"hostname {self.name}",
            f"mount --bind {hosts} /etc/hosts",
        ):
            self._namespaces.run(*command.split())
        if Path("/etc/resolv.conf").exists():
            # do not look up unknown names elsewhere
            self._namespaces.run("mount", "--bind", "/dev/null", "/etc/resolv.conf")

    def inside(self, command: Sequence[str]) -> list[str]:
        """The argv that runs a command on this machine."""
        return self._namespaces.inside(command)

    def processes(self) -> list[psutil.Process]:
        """The processes on this machine."""
        return self._namespaces.processes()

    def end(self) -> None:
        """SIGKILL everything on it, and free its port on the bridge."""
        self._namespaces.end()
        self._bridge.remove_cable(self._cable)

    def disconnect(self) -> None:
        """Unplug the cable: no packet passes, and no connection is closed."""
        self._bridge.namespaces.run("ip", "link", "set", self._cable, "down")

    def reconnect(self) -> None:
        """Plug the cable in again."""
        self._bridge.namespaces.run("ip", "link", "set", self._cable, "up")

    def limit(self, bits_per_second: float | None, delay_seconds: float = 0.0) -> None:
        """Slow the cable in both directions; None and 0 remove the limits.

        Args:
            bits_per_second: bandwidth.
            delay_seconds: in each direction; needs a kernel with netem.

        Raises:
            UserError: the kernel lacks the queueing discipline.
        """
        ends = ((self._bridge.namespaces, self._cable), (self._namespaces, "eth0"))
        for namespaces, device in ends:
            subprocess.run(namespaces.inside(["tc", "qdisc", "del", "dev", device, "root"]), capture_output=True)
        if delay_seconds:
            rate = ["rate", f"{bits_per_second:.0f}bit"] if bits_per_second else []
            queue = ["netem", "delay", f"{delay_seconds * 1e3:.3f}ms", *rate]
        elif bits_per_second:
            # a burst of what passes in one scheduler tick, and at least a few packets
            burst = max(16_000, round(bits_per_second / 8 / 250))
            queue = ["tbf", "rate", f"{bits_per_second:.0f}bit", "burst", f"{burst}", "latency", "400ms"]
        else:
            return
        for namespaces, device in ends:
            namespaces.run("tc", "qdisc", "add", "dev", device, "root", *queue)


class Bridge:
    """The switch that connects all cables."""

    def __init__(self) -> None:
        self.namespaces = Namespaces("--net")
        self.namespaces.run("ip", "link", "add", "bridge", "type", "bridge")
        self.namespaces.run("ip", "link", "set", "bridge", "up")

    def remove_cable(self, cable: str) -> None:
        """Remove a cable."""
        subprocess.run(self.namespaces.inside(["ip", "link", "delete", cable]), capture_output=True)

    def end(self) -> None:
        """Remove the bridge."""
        self.namespaces.end()


def kernel_has_delays() -> bool:
    """Whether the kernel has netem, tried in a new namespace."""
    command = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(command, capture_output=True).returncode == 0
