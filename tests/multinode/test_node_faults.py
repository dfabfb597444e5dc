"""Nodes that fail, are disconnected, slowed or stopped, on a private network: the run reaches the uninterrupted result.

Every node is a network namespace. The same faults of single processes, disks and data are in
tests/distributed/test_faults.py, which needs no root.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_launchers import forked_launchers
from states import final_state, worst_difference
from torch import Tensor

from latentscale.launching.localcluster import ClusterNode, LocalCluster
from latentscale.launching.namespaces import unavailable_reason
from launching import ROOT, Processes, environment, launch_command, overrides, slowed_script

pytestmark = [pytest.mark.processes, pytest.mark.skipif(bool(unavailable_reason()), reason=str(unavailable_reason()))]

TOLERANCE = 1e-9
STEPS = 100
TIMEOUT_SECONDS = 5
RECIPE = ROOT / "recipes" / "pvdgan.py"
SETTINGS: dict[str, object] = {
    "training__steps": STEPS,
    "training__batch": 48,
    "distributed__streams": 12,
    "checkpoint__every_steps": 5,
    "training__report_every_steps": 1,
    "distributed__heartbeat_seconds": 0.4,
    "distributed__timeout_seconds": TIMEOUT_SECONDS,
    "telemetry__progress": "true",
}


@pytest.fixture(scope="module", autouse=True)
def _forked() -> Iterator[None]:
    """No launcher, agent or process of a run imports torch anew: test_localcluster.py starts interpreters."""
    with forked_launchers():
        yield


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The final state of one uninterrupted process."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    # an interpreter of its own, with a hash seed of its own: forked runs share theirs
    finished = Processes().run(
        [*launch_command(1, RECIPE), f"run.dir={folder}", *overrides(**SETTINGS)], interpreter=True
    )
    assert finished.code == 0, finished.err
    return final_state(folder)


def cluster_of(nodes: int) -> LocalCluster:
    return LocalCluster(nodes, environment(PYTHONPATH=str(ROOT / "platform")))


def command(folder: Path) -> list[str]:
    """PVDGAN's recipe with slow steps, like those of a larger model."""
    script = slowed_script(folder.with_suffix(".py"), "pvdgan", phase_seconds=0.04)
    return [str(script), f"run.dir={folder}", *overrides(**SETTINGS)]


def output(cluster: LocalCluster) -> str:
    return "\n".join(
        f"--- {node.name}\n{node.launcher.output[-3000:]}" for node in cluster.nodes if node.launcher is not None
    )


def wait_for_steps(cluster: LocalCluster, folder: Path, step: int, timeout_seconds: float = 90) -> None:
    """Wait until the run has reported a step."""
    metrics, deadline = folder / "metrics.jsonl", time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if metrics.exists() and f'{{"step": {step},' in metrics.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached\n{output(cluster)}")


def lines_of(node: ClusterNode, start: str) -> list[str]:
    assert node.launcher is not None
    return [line for line in node.launcher.output.splitlines() if line.startswith(start)]


def finishes(cluster: LocalCluster, folder: Path, reference: dict[str, Tensor]) -> None:
    try:
        codes = cluster.wait(120)
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{output(cluster)}") from None
    assert codes == [0] * len(codes), output(cluster)
    assert worst_difference(final_state(folder), reference) <= TOLERANCE


def test_a_killed_worker_and_then_a_link_cut_for_long(reference: dict[str, Tensor], tmp_path: Path) -> None:
    """Both end the run with a line that names the rank, and the launchers restart it: twice in one run."""
    folder = tmp_path / "run"
    with cluster_of(3) as cluster:
        cluster.launch(command(folder), max_restarts=2, pause_seconds=0.5)
        wait_for_steps(cluster, folder, 8)
        cluster.ranks()[2].kill()
        wait_for_steps(cluster, folder, 30)
        first = cluster.nodes[0]
        assert any("rank 2" in line for line in lines_of(first, "launcher of node 0: ")), output(cluster)
        cluster.nodes[1].disconnect()
        time.sleep(TIMEOUT_SECONDS + 4)
        cluster.nodes[1].reconnect()
        finishes(cluster, folder, reference)
        said = " ".join(lines_of(first, "error: "))
        assert "no heartbeat from rank 1 on node-1 (last at step " in said, output(cluster)
        assert "rank 0 is unreachable" in " ".join(lines_of(cluster.nodes[1], "error: ")), output(cluster)


def test_a_link_cut_for_a_short_time_and_a_slow_node_cost_no_restart(
    reference: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with cluster_of(3) as cluster:
        cluster.launch(command(folder), max_restarts=0)
        wait_for_steps(cluster, folder, 8)
        cluster.nodes[1].disconnect()
        time.sleep(TIMEOUT_SECONDS / 3)
        cluster.nodes[1].reconnect()
        wait_for_steps(cluster, folder, 40)
        cluster.nodes[2].slow(4e6)
        finishes(cluster, folder, reference)
        assert not [line for node in cluster.nodes for line in lines_of(node, "error: ")]


def test_a_node_that_fails_and_then_node_0(reference: dict[str, Tensor], tmp_path: Path) -> None:
    """By power failure, so that no connection is closed; they boot and their launchers are restarted."""
    folder = tmp_path / "run"
    changed = {"max_restarts": 4, "pause_seconds": 0.5}
    with cluster_of(3) as cluster:
        run = command(folder)
        cluster.launch(run, **changed)
        for step, lost in ((8, 2), (40, 0)):
            wait_for_steps(cluster, folder, step)
            cluster.nodes[lost].kill(silently=lost != 0)
            time.sleep(1)
            cluster.nodes[lost].boot()
            cluster.relaunch(lost)
        finishes(cluster, folder, reference)


def test_sigterm_to_one_node_of_four_stops_all_and_two_continue(reference: dict[str, Tensor], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with cluster_of(4) as cluster:
        launchers = cluster.launch(command(folder), max_restarts=1)
        wait_for_steps(cluster, folder, 8)
        launchers[2].signal(signal.SIGTERM)
        launchers[2].signal(signal.SIGTERM)
        assert cluster.wait(60) == [0, 0, 0, 0], output(cluster)
        assert (folder / "STOPPED").exists()
        launchers = cluster.launch(command(folder), nodes=[1, 3])
        assert [launcher.wait(90) for launcher in launchers] == [0, 0], output(cluster)
        assert not (folder / "STOPPED").exists()
        assert worst_difference(final_state(folder), reference) <= TOLERANCE
