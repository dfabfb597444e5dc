"""A failed process restarts all nodes together; a user error does not; and a stop on one node stops all.

Two nodes are two launchers on the loopback, each with real processes over gloo.
"""

import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest
from nodes import STUB_WORKER, Nodes, until
from states import final_state, worst_difference

from latentscale.launching.process_tree import is_alive
from latentscale.launching.rendezvous import CAUSE_WAIT_SECONDS
from launching import ROOT, Processes, Train, overrides

RECIPE = str(ROOT / "recipes" / "pvdgan.py")
AGAIN = {"max-restarts": 1, "pause-seconds": 0.2}

pytestmark = pytest.mark.processes


def starts(folder: Path) -> list[str]:
    """Which ranks were started, and after how many restarts: RANK-RESTARTS."""
    return sorted(path.name.removeprefix("started-") for path in folder.glob("started-*"))


def lines_of_launcher(output: str) -> list[str]:
    """What launchers report, but for those that a busy machine lets wait for the others long enough to say so."""
    lines = [line for line in output.splitlines() if line.startswith("launcher")]
    return [line for line in lines if ": still waiting: " not in line]


def test_a_killed_worker_restarts_both_nodes_and_the_run_is_the_uninterrupted_one(
    processes: Processes, train: Train, tmp_path: Path
) -> None:
    settings = {"training__steps": 60, "checkpoint__every_steps": 10}
    # an interpreter of its own, with a hash seed of its own: forked runs share theirs
    train("pvdgan", tmp_path / "whole", interpreter=True, **settings)
    folder = tmp_path / "run"
    # an earlier run: run.restart=true moves it aside at the first start, and not at the restart
    folder.mkdir()
    (folder / "config.yaml").touch()
    nodes = Nodes(processes, 2)
    arguments = [f"run.dir={folder}", "run.restart=true", "distributed.processes=2", *overrides(**settings)]
    nodes.start([RECIPE, *arguments], AGAIN)
    until((folder / "checkpoints" / "step-000000020").exists)
    nodes.rank(1).send_signal(signal.SIGKILL)
    codes, outputs = nodes.wait()
    assert codes == [0, 0], outputs
    for output in outputs:
        assert len(lines_of_launcher(output)) == 1, output
        (line,) = lines_of_launcher(output)
        assert "node 1: rank 1" in line
        assert "ended without reporting why" in line
        assert line.endswith("restarting in 0.2 s (restart 1 of 1)")
    assert [path.name for path in tmp_path.glob("run.old-*")] == ["run.old-1"]
    assert worst_difference(final_state(folder), final_state(tmp_path / "whole")) <= 1e-9


def test_a_user_error_is_not_restarted(processes: Processes, tmp_path: Path) -> None:
    nodes = Nodes(processes, 2)
    nodes.start([STUB_WORKER, str(tmp_path), "50", "refuse"], {**AGAIN, "max-restarts": 3})
    codes, outputs = nodes.wait()
    assert codes == [2, 2], outputs
    assert starts(tmp_path) == ["0-0", "1-0"]
    # the other node's processes do not know why, so its launcher prints it
    assert lines_of_launcher(outputs[0]) == ["launcher of node 0: node 1: rank 1: training.batch=0"]


def test_out_of_restarts_ends_with_1_and_one_line(processes: Processes, tmp_path: Path) -> None:
    nodes = Nodes(processes, 2)
    nodes.start([STUB_WORKER, str(tmp_path), "50", "lose"], AGAIN)
    codes, outputs = nodes.wait()
    assert codes == [1, 1], outputs
    assert starts(tmp_path) == ["0-0", "0-1", "1-0", "1-1"]
    for node, output in enumerate(outputs):
        again, last = lines_of_launcher(output)
        assert "rank 0: the disk is full" in again
        assert again.endswith("restarting in 0.2 s (restart 1 of 1)")
        assert last.startswith(f"launcher of node {node}: ")
        assert "rank 0: the disk is full" in last
        assert last.endswith("giving up after 1 restart; run the same command to continue from the last checkpoint")


def test_sigterm_to_one_node_stops_both_at_one_step_and_promptly(processes: Processes, tmp_path: Path) -> None:
    nodes = Nodes(processes, 2, processes_per_node=2)
    nodes.start([STUB_WORKER, str(tmp_path), "100000"], {**AGAIN, "stopped-status": 75})
    until(lambda: len(list(tmp_path.glob("trains-*"))) == 4)
    nodes.signal(1, signal.SIGTERM)
    began = time.monotonic()
    codes, outputs = nodes.wait()
    assert codes == [75, 75], outputs
    assert time.monotonic() - began < 15
    steps = set(re.findall(r"stopped at step (\d+)", "".join(outputs)))
    assert len(steps) == 1
    assert not any(map(lines_of_launcher, outputs))


def test_sigterm_to_all_processes_of_one_node_stops_both(processes: Processes, tmp_path: Path) -> None:
    """As Slurm sends it: torchelastic's agents would then wait for each other for five minutes."""
    nodes = Nodes(processes, 2)
    nodes.start([STUB_WORKER, str(tmp_path), "100000"], AGAIN)
    until(lambda: len(list(tmp_path.glob("trains-*"))) == 2)
    launcher = psutil.Process(nodes.launchers[1].pid)
    for process in [launcher, *launcher.children(recursive=True)]:
        process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    codes, outputs = nodes.wait()
    assert codes == [0, 0], outputs
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(("count", "processes_per_node"), [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("how", ["import", "import-0"])
def test_sigterm_while_processes_start_is_a_stop(
    how: str, count: int, processes_per_node: int, processes: Processes, tmp_path: Path
) -> None:
    """The signal ends a process that has no handler yet: nothing is lost, so it is not a failure."""
    nodes = Nodes(processes, count, processes_per_node)
    nodes.start([STUB_WORKER, str(tmp_path), "100000", how], {**AGAIN, "stopped-status": 75})
    ranks = count * processes_per_node
    until(lambda: len(starts(tmp_path)) == ranks)
    time.sleep(0.2)
    nodes.signal(count - 1, signal.SIGTERM)
    began = time.monotonic()
    codes, outputs = nodes.wait()
    assert codes == [75] * count, outputs
    assert time.monotonic() - began < 15
    assert not any(map(lines_of_launcher, outputs))
    assert len(starts(tmp_path)) == ranks


@pytest.mark.parametrize(("count", "processes_per_node"), [(1, 1), (1, 2), (2, 1)])
def test_sigterm_before_there_are_processes_is_a_stop(
    count: int, processes_per_node: int, processes: Processes, tmp_path: Path
) -> None:
    """The signal reaches accelerate launch, or a recipe, while it imports libraries."""
    nodes = Nodes(processes, count, processes_per_node, interpreters=True)
    nodes.start([STUB_WORKER, str(tmp_path), "100000", "import"], {**AGAIN, "stopped-status": 75})
    launcher = psutil.Process(nodes.launchers[0].pid)
    until(launcher.children)
    nodes.signal(0, signal.SIGTERM)
    codes, outputs = nodes.wait()
    assert codes == [75] * count, outputs
    assert not any(map(lines_of_launcher, outputs))


@pytest.mark.parametrize(("count", "told"), [(1, 0), (2, 0), (2, 1)])
def test_sigterm_between_two_starts_is_a_stop(count: int, told: int, processes: Processes, tmp_path: Path) -> None:
    nodes = Nodes(processes, count, processes_per_node=2)
    nodes.start([STUB_WORKER, str(tmp_path), "50", "lose"], {**AGAIN, "pause-seconds": 60, "stopped-status": 75})
    wait_for_pause(nodes, tmp_path, range(count))
    time.sleep(2)  # a busy launcher notices later than this test
    nodes.signal(told, signal.SIGTERM)
    began = time.monotonic()
    codes, outputs = nodes.wait()
    assert codes == [75] * count, outputs
    assert time.monotonic() - began < 10
    for output in outputs:
        (line,) = lines_of_launcher(output)
        assert line.endswith("restarting in 60 s (restart 1 of 1)")
    assert len(starts(tmp_path)) == 2 * count


def test_a_node_that_has_not_rejoined_yet_is_stopped_too(processes: Processes, tmp_path: Path) -> None:
    nodes = Nodes(processes, 2)
    nodes.start([STUB_WORKER, str(tmp_path), "50", "lose"], {**AGAIN, "pause-seconds": 60, "stopped-status": 75})
    until(lambda: len(list(tmp_path.glob("trains-*"))) == 2)
    nodes.signal(1, signal.SIGSTOP)
    wait_for_pause(nodes, tmp_path, [0])
    nodes.signal(0, signal.SIGTERM)
    time.sleep(CAUSE_WAIT_SECONDS + 1)  # longer than node 0 waits for the other's report
    nodes.signal(1, signal.SIGCONT)
    began = time.monotonic()
    codes, outputs = nodes.wait()
    assert codes == [75, 75], outputs
    assert time.monotonic() - began < 10
    assert starts(tmp_path) == ["0-0", "1-0"]
    # it was asked after the failure, and before the end of the round was known
    assert lines_of_launcher(outputs[0]) == [
        "launcher of node 0: node 0: rank 0: the disk is full: not restarted, since it was asked to stop"
    ]


def wait_for_pause(nodes: Nodes, folder: Path, which: Iterable[int]) -> None:
    """Wait until the launchers of some nodes have started processes and noticed their end."""
    until(lambda: len(starts(folder)) == nodes.count * nodes.processes_per_node)
    for node in which:
        launcher = psutil.Process(nodes.launchers[node].pid)
        until(lambda launcher=launcher: not any(map(is_alive, launcher.children())))
    time.sleep(0.3)


@pytest.mark.parametrize("processes_per_node", [1, 2])
def test_a_process_that_crashes_on_a_request_to_stop_has_not_stopped(
    processes_per_node: int, processes: Processes, tmp_path: Path
) -> None:
    nodes = Nodes(processes, 1, processes_per_node)
    nodes.start([STUB_WORKER, str(tmp_path), "50", "crash"], AGAIN)
    until(lambda: len(starts(tmp_path)) == processes_per_node)
    time.sleep(0.2)
    nodes.signal(0, signal.SIGTERM)
    codes, outputs = nodes.wait()
    assert codes == [1]
    (line,) = lines_of_launcher(outputs[0])
    assert "ended without reporting why, after a request to stop" in line


def test_a_process_that_will_not_stop_is_killed_after_the_grace(processes: Processes, tmp_path: Path) -> None:
    nodes = Nodes(processes, 1, processes_per_node=2)
    nodes.start([STUB_WORKER, str(tmp_path), "50", "hang"], {**AGAIN, "grace-seconds": 1})
    until(lambda: len(list(tmp_path.glob("trains-*"))) == 2)
    left = [nodes.rank(0), nodes.rank(1)]
    nodes.signal(0, signal.SIGTERM)
    codes, outputs = nodes.wait()
    assert codes == [1]
    assert outputs[0].splitlines()[-1].startswith("launcher: rank 0, 1: ended without reporting why, after a request")
    assert starts(tmp_path) == ["0-0", "1-0"]
    assert not any(process.is_running() for process in left)


def test_a_killed_launcher_takes_its_processes_with_it_and_its_node_may_rejoin(
    processes: Processes, tmp_path: Path
) -> None:
    nodes = Nodes(processes, 2)
    command = [STUB_WORKER, str(tmp_path), "400"]
    nodes.start(command, AGAIN)
    until(lambda: len(list(tmp_path.glob("trains-*"))) == 2)
    worker = nodes.rank(0)
    nodes.launchers[0].kill()  # node 0 runs the rendezvous
    psutil.wait_procs([worker], timeout=20)
    assert not worker.is_running()
    nodes.launchers[0].communicate()
    nodes.launchers[0] = nodes.start_one(0, command, AGAIN)
    codes, outputs = nodes.wait()
    assert codes == [0, 0], outputs
    # a node that rejoins learns from the others that this is a restart
    assert starts(tmp_path) == ["0-0", "0-1", "1-0", "1-1"]


def test_nodes_that_do_not_join_are_named(processes: Processes, tmp_path: Path) -> None:
    nodes = Nodes(processes, 3)
    waiting = {**AGAIN, "rendezvous-seconds": 2}
    nodes.launchers = [nodes.start_one(0, [STUB_WORKER, str(tmp_path), "1"], waiting)]
    codes, outputs = nodes.wait()
    assert codes == [1]
    (line,) = outputs[0].splitlines()[-1:]
    assert "node 1, 2 did not join at 127.0.0.1:" in line
    assert "within 2 s: giving up" in line
    nodes.launchers = [nodes.start_one(1, [STUB_WORKER, str(tmp_path), "1"], waiting)]
    codes, outputs = nodes.wait()
    assert codes == [1]
    assert "could not reach node 0 at 127.0.0.1:" in outputs[0].splitlines()[-1]
    assert not starts(tmp_path)


def test_a_stop_while_nodes_wait_for_another_ends_all(processes: Processes, tmp_path: Path) -> None:
    nodes = Nodes(processes, 3)
    nodes.launchers = [
        nodes.start_one(rank, [STUB_WORKER, str(tmp_path), "1"], {"stopped-status": 75}) for rank in (0, 1)
    ]
    connected = psutil.Process(nodes.launchers[1].pid)
    until(lambda: any(link.status == psutil.CONN_ESTABLISHED for link in connected.net_connections("tcp")))
    nodes.signal(1, signal.SIGTERM)
    codes, outputs = nodes.wait()
    assert codes == [75, 75], outputs
    assert not starts(tmp_path)


def test_nodes_with_different_options_are_refused(processes: Processes, tmp_path: Path) -> None:
    nodes = Nodes(processes, 2)
    command = [STUB_WORKER, str(tmp_path), "1"]
    nodes.launchers = [nodes.start_one(0, command, AGAIN), nodes.start_one(1, command, {"max-restarts": 5})]
    codes, outputs = nodes.wait()
    assert codes == [2, 2], outputs
    for output in outputs:
        assert "node 1 has --max-restarts 5 but node 0 has 1: give all nodes the same value" in output
    assert not starts(tmp_path)


def test_a_port_that_is_taken_is_refused(processes: Processes, tmp_path: Path) -> None:
    nodes = Nodes(processes, 2)
    first = nodes.start_one(0, [STUB_WORKER, str(tmp_path), "1"], {})
    until(lambda: psutil.Process(first.pid).net_connections("tcp"))
    nodes.launchers = [nodes.start_one(0, [STUB_WORKER, str(tmp_path), "1"], {})]
    codes, outputs = nodes.wait()
    assert codes == [2]
    assert re.fullmatch(
        r"error: --main-port \d+: node 0 cannot listen on this port \(.*\): choose another\n", outputs[0]
    )
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0  # nothing had begun


def test_one_process_needs_no_agent(processes: Processes, tmp_path: Path) -> None:
    """Its exit status shows how it ended; a user error is not restarted, a kill is."""
    script = tmp_path / "script.py"
    script.write_text("import os, sys\nprint(os.environ['LATENTSCALE_RESTART_COUNT'])\nexec(sys.argv[1])\n")
    endings = {"pass": (0, ["0"]), "sys.exit(2)": (2, ["0"]), "os.kill(os.getpid(), 9)": (1, ["0", "1"])}
    for act, (code, counts) in endings.items():
        nodes = Nodes(processes, 1)
        nodes.start([str(script), act], AGAIN)
        codes, outputs = nodes.wait()
        assert codes == [code]
        assert re.findall(r"^\d+$", outputs[0], re.MULTILINE) == counts


@pytest.mark.parametrize("how", ["finished", "failed", "SIGTERM"])
def test_a_nodes_run_leaves_no_temporary_files(
    how: str, processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    nodes = Nodes(processes, 1, processes_per_node=2)
    steps, act = {"finished": ("400", ""), "failed": ("400", "lose"), "SIGTERM": ("100000", "")}[how]
    nodes.start([STUB_WORKER, str(tmp_path), steps, act], {**AGAIN, "stopped-status": 75})
    until(lambda: len(list(tmp_path.glob("trains-*"))) == 2)
    if how != "failed":
        assert list(temporary.iterdir())
    if how == "SIGTERM":
        nodes.signal(0, signal.SIGTERM)
    codes, outputs = nodes.wait()
    assert codes == [{"finished": 0, "failed": 1, "SIGTERM": 75}[how]], outputs
    assert not list(temporary.iterdir())
