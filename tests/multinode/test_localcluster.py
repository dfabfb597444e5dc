"""Nodes with private networks train like one process, and their links and nodes can be made to fail.

Where there can be no such nodes (no root), the tests of the cluster are skipped with the reason, and node launchers on
the loopback show the same equality.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TextIO

import psutil
import pytest
from forked_launchers import forked_launchers
from nodes import STUB_WORKER, Nodes, until
from states import final_state, worst_difference
from torch import Tensor

from forked import SERVER
from latentscale.errors import UserError
from latentscale.launching.localcluster import Command, LocalCluster
from latentscale.launching.namespaces import Namespaces, kernel_has_delays, unavailable_reason
from latentscale.launching.process_tree import is_alive
from launching import ROOT, Processes, environment, launch_command, overrides

TOLERANCE = 1e-9
RECIPE = str(ROOT / "recipes" / "pvdgan.py")
SETTINGS = {"training__batch": 48, "distributed__streams": 12, "training__steps": 10}
SCRIPT = str(ROOT / "launchers" / "localcluster.py")
REASON = unavailable_reason()

pytestmark = pytest.mark.processes
on_a_cluster = pytest.mark.skipif(REASON is not None, reason=f"no local cluster: {REASON}")

# receives for so many seconds, printing when the first byte came and how many came
RECEIVE = """
import socket, sys, time
listener = socket.create_server(("", 5000))
print("ready", flush=True)
link, _ = listener.accept()
link.settimeout(0.1)
count = 0
while True:
    try:
        data = link.recv(1 << 16)
    except TimeoutError:
        continue
    if not data:
        break
    count += len(data)
    print(f"{time.time()} {count}", flush=True)
"""
SEND = """
import socket, sys, time
link = socket.create_connection((sys.argv[1], 5000), timeout=10)
link.settimeout(60)
for _ in range(int(sys.argv[2])):
    link.sendall(bytes(int(sys.argv[3])))
    time.sleep(float(sys.argv[4]))
"""


def cluster_environment(**extra: str) -> dict[str, str]:
    return environment(PYTHONPATH=str(ROOT / "platform"), **extra)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The final state of one process with the whole batch."""
    folder = tmp_path_factory.mktemp("alone")
    command = [*launch_command(1, RECIPE), f"run.dir={folder}", *overrides(**SETTINGS)]
    # an interpreter of its own, with a hash seed of its own: forked runs share theirs
    finished = Processes().run(command, interpreter=True)
    assert finished.code == 0, finished.err
    return final_state(folder)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3, cluster_environment()) as three:
        yield three


def arguments(folder: Path, processes: int) -> list[str]:
    return [RECIPE, f"run.dir={folder}", f"distributed.processes={processes}", *overrides(**SETTINGS)]


@on_a_cluster
@pytest.mark.parametrize("processes_per_node", [1, 2])
def test_three_nodes_train_like_one_process(
    processes_per_node: int, cluster: LocalCluster, alone: dict[str, Tensor], tmp_path: Path
) -> None:
    with forked_launchers():
        launchers = cluster.launch(
            arguments(tmp_path, 3 * processes_per_node), processes_per_node=processes_per_node, rendezvous_seconds=30
        )
        assert cluster.wait(120) == [0, 0, 0], [launcher.output[-2000:] for launcher in launchers]
    assert worst_difference(final_state(tmp_path), alone) <= TOLERANCE


# on a cluster, three nodes have trained already
@pytest.mark.parametrize("processes_per_node", [1] if REASON is None else [1, 2])
def test_three_launchers_on_the_loopback_train_like_one_process(
    processes_per_node: int, processes: Processes, alone: dict[str, Tensor], tmp_path: Path
) -> None:
    nodes = Nodes(processes, 3, processes_per_node)
    nodes.start(arguments(tmp_path, 3 * processes_per_node), {})
    codes, outputs = nodes.wait(120)
    assert codes == [0, 0, 0], outputs
    assert worst_difference(final_state(tmp_path), alone) <= TOLERANCE


@on_a_cluster
def test_nodes_have_names_and_addresses_and_no_other_network(cluster: LocalCluster) -> None:
    for number, node in enumerate(cluster.nodes):
        said = node.run(["sh", "-c", "hostname; getent hosts node-0 node-2; ip -brief link; ip route"]).out
        lines = said.splitlines()
        assert lines[0] == f"node-{number}"
        assert [line.split() for line in lines[1:3]] == [["10.77.0.1", "node-0"], ["10.77.0.3", "node-2"]]
        assert [line.split("@")[0].split()[0] for line in lines[3:5]] == ["lo", "eth0"]
        assert [line.split()[0] for line in lines[5:]] == ["10.77.0.0/24"]  # no way out
    names = {name for _, name in socket.if_nameindex()}
    assert not any(name.startswith(("cable", "bridge")) for name in names)


def connect(cluster: LocalCluster, sends: int, size: int, pause: float) -> tuple[Command, Command]:
    """A transfer from node 1 to node 0."""
    receiver = cluster.nodes[0].start([sys.executable, "-c", RECEIVE])
    until(lambda: "ready" in receiver.output)
    command = [sys.executable, "-c", SEND, cluster.nodes[0].address, str(sends), str(size), str(pause)]
    return receiver, cluster.nodes[1].start(command)


def arrivals(receiver: Command) -> list[tuple[float, int]]:
    """The times and numbers of received bytes."""
    lines = [line.split() for line in receiver.output.splitlines() if " " in line]
    return [(float(seconds), int(count)) for seconds, count in lines]


@on_a_cluster
def test_a_disconnected_link_carries_nothing_and_a_reconnected_one_everything(cluster: LocalCluster) -> None:
    receiver, sender = connect(cluster, sends=20, size=100, pause=0.05)
    until(lambda: arrivals(receiver))
    cluster.nodes[1].disconnect()
    time.sleep(0.2)
    before = len(arrivals(receiver))
    time.sleep(1.0)
    assert len(arrivals(receiver)) == before
    refused = cluster.nodes[1].run(
        [sys.executable, "-c", "import socket; socket.create_connection(('node-2', 9), timeout=0.3)"]
    )
    assert "Error" in refused.err
    cluster.nodes[1].reconnect()
    assert (sender.wait(30), receiver.wait(30)) == (0, 0)  # the connection has outlived the cut
    assert arrivals(receiver)[-1][1] == 20 * 100
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(arrivals(receiver))]
    assert max(gaps) > 1.0


@on_a_cluster
def test_a_slow_link_has_the_requested_bandwidth(cluster: LocalCluster) -> None:
    def megabits_per_second() -> float:
        receiver, sender = connect(cluster, sends=16, size=1 << 16, pause=0)
        assert (sender.wait(60), receiver.wait(60)) == (0, 0)
        (first, there), *_, (last, count) = arrivals(receiver)
        return (count - there) * 8e-6 / (last - first)

    cluster.nodes[1].slow(bits_per_second=10e6)
    slow = megabits_per_second()
    cluster.nodes[1].slow(None)
    assert 7 < slow < 12
    assert max(megabits_per_second() for _ in range(3)) > 50


@on_a_cluster
def test_delays_need_netem(cluster: LocalCluster) -> None:
    ask = [sys.executable, "-c", "import socket, time; s = time.time()\ntry: socket.create_connection(('node-0', 9))"
           "\nexcept ConnectionRefusedError: print(time.time() - s)"]  # fmt: skip
    if kernel_has_delays():
        cluster.nodes[1].slow(None, delay_seconds=0.05)
        assert float(cluster.nodes[1].run(ask).out) > 0.09
    else:
        with pytest.raises(UserError, match=r"netem.* failed"):
            cluster.nodes[1].slow(None, delay_seconds=0.05)
    cluster.nodes[1].slow(None)
    assert min(float(cluster.nodes[1].run(ask).out) for _ in range(5)) < 0.05


@on_a_cluster
def test_a_killed_node_is_gone_and_may_be_booted_again() -> None:
    with LocalCluster(2, cluster_environment()) as cluster:
        receiver, sender = connect(cluster, sends=10_000, size=100, pause=0.02)
        until(lambda: arrivals(receiver))
        there = cluster.nodes[1].machine.processes()
        assert len(there) >= 1
        cluster.nodes[1].kill()
        assert sender.wait(5) == -signal.SIGKILL
        assert not any(process.is_running() and process.status() != "zombie" for process in there)
        assert receiver.wait(5) in (0, 1)  # its kernel told the other side
        with pytest.raises(RuntimeError, match="node-1 is off"):
            cluster.nodes[1].run(["true"])
        cluster.nodes[1].boot()
        assert cluster.nodes[1].run(["hostname"]).out == "node-1\n"
        # the others reach it at once: it has the hardware address that they have cached
        receiver, _ = connect(cluster, sends=10_000, size=100, pause=0.02)
        until(lambda: arrivals(receiver), timeout_seconds=5)
        cluster.nodes[1].kill(silently=True)  # and a loss of power tells nobody
        with pytest.raises(TimeoutError):
            receiver.wait(1)


@on_a_cluster
def test_ranks_are_found_and_a_killed_one_restarts_all_processes(cluster: LocalCluster, tmp_path: Path) -> None:
    launchers = cluster.launch(
        [STUB_WORKER, str(tmp_path), "400"], nodes=[1, 2], processes_per_node=2, max_restarts=1, pause_seconds=0.2
    )
    until(lambda: len(list(tmp_path.glob("trains-*"))) == 4)
    assert [sorted(node.ranks()) for node in cluster.nodes] == [[], [0, 1], [2, 3]]
    cluster.nodes[2].ranks()[3].kill()
    assert [launcher.wait(60) for launcher in launchers] == [0, 0], [launcher.output for launcher in launchers]
    assert "node 1: rank 3: ended without reporting why" in launchers[0].output
    assert len(list(tmp_path.glob("started-*-1"))) == 4


def network_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


@on_a_cluster
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_cluster_that_has_ended(
    number: signal.Signals, processes: Processes, tmp_path: Path
) -> None:
    command = [sys.executable, SCRIPT, "--nodes", "2", STUB_WORKER, str(tmp_path), "100000"]
    process = processes.start(command, PYTHONPATH=str(ROOT / "platform"))
    until(lambda: len(list(tmp_path.glob("trains-*"))) == 2)
    children = psutil.Process(process.pid).children(recursive=True)
    inside = [child for child in children if network_of(child.pid) != network_of(os.getpid())]
    assert len(inside) > 6
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 20
    if number == signal.SIGTERM:
        assert process.returncode == 0, err
        # launchers may print something, too
        for number_of_node in (0, 1):
            assert f"[node-{number_of_node}] rank {number_of_node}: stopped at " in out, out + err
    # the kernel removes namespaces, interfaces and mounts with the last process
    _, alive = psutil.wait_procs(inside, timeout=10)
    assert not alive


@on_a_cluster
@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_worst_status_of_a_node_is_the_cluster_s(status: int, processes: Processes, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nprint('here')\nsys.exit({status})\n")
    finished = processes.run([sys.executable, SCRIPT, "--nodes", "1", str(script)], PYTHONPATH=str(ROOT / "platform"))
    assert finished.code == status
    assert "[node-0] here\n" in finished.out


def test_without_root_it_reports_so(processes: Processes) -> None:
    command = [sys.executable, SCRIPT, STUB_WORKER]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=65534", "--clear-groups", *command]
    finished = processes.run(command, PYTHONPATH=str(ROOT / "platform"))
    assert (finished.code, finished.out, finished.err) == (2, "", "error: network namespaces need root\n")


@on_a_cluster
@pytest.mark.parametrize("how", ["the server ends", "the namespaces end"])
def test_what_is_forked_into_namespaces_reports_its_process_id_there_and_leaves_nothing(how: str) -> None:
    content = "import os, socket, time; print(os.getpid(), os.getppid(), os.getsid(0), flush=True); time.sleep(600)"
    request = {"argv": ["-c", content], "cwd": "/", "environment": {}, "forks_children": True}
    node = Namespaces("--net", "--mount", "--uts", "--pid", "--mount-proc")
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, str(SERVER), str(its.fileno()), "cold"]
    server = subprocess.Popen(command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, start_new_session=True)
    its.close()

    def fork(model: int | None) -> tuple[TextIO, TextIO]:
        """Its output and its report."""
        (out, out_write), (report, report_write) = os.pipe(), os.pipe()
        data = json.dumps({**request, "namespaces_of": model}).encode()
        socket.send_fds(ours, [data], [out_write, out_write, report_write])
        os.close(out_write)
        os.close(report_write)
        return os.fdopen(out), os.fdopen(report)

    with ours, contextlib.ExitStack() as opened:
        try:
            out, report = map(opened.enter_context, fork(node.first.pid))
            pid = int(report.readline())
            # its parent is in none of its namespaces
            assert out.readline() == f"{pid} 0 {pid}\n"
            (forked,) = psutil.Process(server.pid).children()
            assert forked.pid != pid
            assert network_of(forked.pid) == network_of(node.first.pid) != network_of(server.pid)
            (out_of_the_server, _) = map(opened.enter_context, fork(None))
            assert out_of_the_server.readline().split()[1] == str(server.pid)
            if how == "the server ends":
                server.kill()
            else:
                node.first.kill()
                assert report.readline().split()[0] == str(signal.SIGKILL.value)
                # nothing can be started there any more, and the server goes on
                (out_of_none, report_of_none) = map(opened.enter_context, fork(node.first.pid))
                assert out_of_none.read() == report_of_none.read() == ""
                again, _ = map(opened.enter_context, fork(None))
                assert again.readline().split()[1] == str(server.pid)
            until(lambda: not is_alive(forked))
            assert out.read() == ""
        finally:
            node.end()
            server.kill()
            server.wait()
