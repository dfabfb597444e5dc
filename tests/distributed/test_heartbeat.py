"""Which processes have failed, worked out by hand; and real processes whose store or peers disappear."""

import sys
from pathlib import Path

import pytest

from latentscale.distributed.heartbeat import FINISHED, LOST_CONTACT, FailureDetector, Heartbeat
from launching import ROOT, Processes, free_port

TIMEOUT, INTERVAL = 30.0, 2.0


def heartbeat(number: int, step: int = 0, end: str = "", host: str = "a", stage: str = "data") -> Heartbeat:
    return Heartbeat(number, step, stage, host, end)


def failure(detector: FailureDetector, now: float, stuck: float | None = None) -> str:
    found = detector.find_failure(now, TIMEOUT, INTERVAL, stuck)
    return found.message if found else ""


def test_nobody_has_failed_while_all_send_heartbeats() -> None:
    detector = FailureDetector(2, 0.0)
    for number in range(1, 40):
        for rank in (0, 1):
            detector.record(rank, heartbeat(number), 2.0 * number)
        assert failure(detector, 2.0 * number) == ""


def test_an_unchanged_heartbeat_is_silence_and_is_named_with_host_and_step() -> None:
    detector = FailureDetector(4, 0.0)
    for rank, host in enumerate("aabb"):
        detector.record(rank, heartbeat(1, step=100 + rank, host=host), 1.0)
    for now in (10.0, 30.9, 31.0):
        for rank in (0, 1):
            detector.record(rank, heartbeat(int(now), host="a"), now)
        for rank in (2, 3):
            detector.record(rank, heartbeat(1, step=100 + rank, host="b"), now)
        if now < 31:
            assert failure(detector, now) == ""
    assert failure(detector, 31.0) == (
        "no heartbeat from ranks 2, 3 on b (last at step 102, data) for 30 s: killed, stopped or disconnected"
    )


def test_only_silent_ranks_have_failed() -> None:
    detector = FailureDetector(3, 0.0)
    for now in (1.0, 40.0):
        detector.record(1, heartbeat(int(now)), now)
    found = detector.find_failure(40.0, TIMEOUT, INTERVAL)
    assert found is not None
    assert found.ranks == [0, 2]


def test_all_are_named_when_no_process_makes_progress() -> None:
    detector = FailureDetector(2, 0.0)
    for now in (1.0, 10.0, 59.0, 60.0):
        detector.record(0, heartbeat(int(now), step=9, stage="generator"), now)
        detector.record(1, heartbeat(int(now), step=8, stage="data"), now)
    assert failure(detector, 60.0) == ""  # collectives that time out report it elsewhere
    assert failure(detector, 60.0, stuck=59.5) == ""
    assert failure(detector, 60.5, stuck=59.5) == (
        "no process has made progress for 60 s: ranks 0, 1 on a (last at step 9, generator)"
    )
    detector.record(1, heartbeat(99, step=8, stage="discriminator"), 60.5)
    assert failure(detector, 61.0, stuck=59.5) == ""


def test_after_a_lost_connection_silence_is_shorter() -> None:
    detector = FailureDetector(3, 0.0)
    for rank in range(3):
        detector.record(rank, heartbeat(1), 1.0)
    detector.record(1, heartbeat(2, end=LOST_CONTACT), 2.0)
    for now in (2.0, 4.0, 6.0, 8.0, 9.9):
        detector.record(0, heartbeat(int(now)), now)
        assert failure(detector, now) == ""
    assert failure(detector, 10.0).startswith("no heartbeat from rank 2 on a ")


def test_processes_that_failed_together_are_named_together_and_a_late_one_is_not() -> None:
    detector = FailureDetector(4, 0.0)
    detector.record(0, heartbeat(1), 31.0)
    detector.record(1, heartbeat(1), 1.0)  # the last heartbeats of the two were read 1.5 intervals apart
    detector.record(2, heartbeat(1), 4.0)
    detector.record(3, heartbeat(1), 5.1)
    assert failure(detector, 30.9) == ""
    assert failure(detector, 31.0).startswith("no heartbeat from ranks 1, 2 on a ")


def test_a_live_process_that_does_not_join_a_collective_is_named() -> None:
    detector = FailureDetector(3, 0.0)
    for rank in (0, 2):
        detector.record(rank, heartbeat(1, step=9, end=LOST_CONTACT), 1.0)
    detector.record(1, heartbeat(5, step=8, stage="discriminator"), 8.9)
    assert failure(detector, 8.9) == ""
    assert failure(detector, 9.0) == (
        "rank 1 on a (last at step 8, discriminator) did not join a collective that the others waited in"
    )


def test_why_a_process_ended_is_reported_at_once_and_a_finished_one_is_not_missed() -> None:
    detector = FailureDetector(3, 0.0)
    detector.record(1, heartbeat(1, end=FINISHED), 1.0)
    for rank in (0, 2):
        detector.record(rank, heartbeat(40), 100.0)
    assert failure(detector, 101.0) == ""
    detector.record(2, heartbeat(41, end="UserError: no such shard"), 102.0)
    assert failure(detector, 102.0) == "rank 2 ended: UserError: no such shard"


def test_all_lost_contact_with_each_other() -> None:
    detector = FailureDetector(2, 0.0)
    for rank in (0, 1):
        detector.record(rank, heartbeat(3, end=LOST_CONTACT), 3.0)
    assert failure(detector, 11.0) == "all processes lost contact with each other"


def test_rank_zero_is_silent_where_the_store_answers_and_unreachable_where_it_does_not() -> None:
    detector = FailureDetector(3, 0.0)
    detector.record(0, heartbeat(1, step=9), 1.0)
    for answered, told in ((31.0, "no heartbeat from rank 0 on a "), (3.0, "rank 0 is unreachable")):
        assert detector.find_rank_zero_failure(30.9, TIMEOUT, answered, INTERVAL) is None
        found = detector.find_rank_zero_failure(31.0, TIMEOUT, answered, INTERVAL)
        assert found is not None
        assert found.message.startswith(told)
        assert found.ranks == [0]


HANGS = """
import os, sys, threading, time
import torch.distributed as dist
from latentscale.distributed.exiting import exit_interrupted
from latentscale.distributed.process_group import join_process_group
from latentscale.distributed.heartbeat import HeartbeatMonitor
from latentscale.distributed.topology import Topology
topology = Topology.from_environment()
join_process_group(topology, 20)
# the processes of one machine have one clock: those that leave do so at the same moment, however busy it is
moment = [time.monotonic() + 1.5]
dist.broadcast_object_list(moment, 0)
with HeartbeatMonitor(topology.rank, 0.2, 1.5, exit_interrupted) as monitor:
    monitor.step = 7
    print("there", flush=True)
    leaves = os.environ["RANK"] in os.environ["LEAVES"].split(",")
    threading.Event().wait(max(0.0, moment[0] - time.monotonic()) if leaves else 30)
    if leaves:
        if sys.argv[1] == "raises":
            raise ValueError("no more paper")
        os.kill(os.getpid(), 19 if sys.argv[1] == "stops" else 9)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("how", "leaver", "told"),
    [
        ("raises", 2, "rank 2 ended: ValueError: no more paper"),
        ("stops", 2, "no heartbeat from rank 2 on"),
        ("is killed", 1, "no heartbeat from rank 1 on"),
        ("stops", 0, "rank 0"),
        ("is killed", 0, "rank 0 is unreachable"),
    ],
)
def test_processes_whose_main_thread_hangs_end_and_name_the_failed_one(
    how: str, leaver: int, told: str, processes: Processes, tmp_path: Path
) -> None:
    script = tmp_path / "hangs.py"
    script.write_text(HANGS)
    command = [sys.executable, str(script), how]
    started = processes.start_ranks(3, command, PYTHONPATH=str(ROOT / "platform"), LOCAL_RANK="0", LEAVES=str(leaver))
    for rank, process in enumerate(started):
        if rank == leaver:
            continue
        _, err = process.communicate(timeout=40)
        assert process.returncode == 75, err
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert told in lines[0]
        assert lines[0].endswith("run the same command to continue")


def test_the_first_live_process_of_a_node_prints_the_failure_even_if_it_cannot_write_a_report(
    processes: Processes, tmp_path: Path
) -> None:
    script = tmp_path / "hangs.py"
    script.write_text(HANGS)
    started = processes.start_ranks(
        4,
        [sys.executable, str(script), "is killed"],
        PYTHONPATH=str(ROOT / "platform"),
        LEAVES="1,2",
        LATENTSCALE_ENDINGS_FOLDER="/proc/nowhere",
    )
    said = {}
    for rank in (0, 3):
        _, err = started[rank].communicate(timeout=40)
        assert started[rank].returncode == 75, err
        said[rank] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(said[0]) == 1
    assert "no heartbeat from ranks 1, 2 on" in said[0][0]
    assert said[3] == []


def test_a_process_that_does_not_join_is_named(processes: Processes, tmp_path: Path) -> None:
    script = tmp_path / "comes.py"
    script.write_text(
        "from latentscale.distributed.process_group import join_process_group\n"
        "from latentscale.distributed.topology import Topology\n"
        "from latentscale.errors import Interruption\n"
        "try:\n    "
        "join_process_group(Topology.from_environment(), 3)\nexcept Interruption as error:\n    print(error)\n"
    )
    port = str(free_port())
    started = [
        processes.start(
            [sys.executable, str(script)], PYTHONPATH=str(ROOT / "platform"), RANK=str(rank), WORLD_SIZE="4",
            LOCAL_RANK="0", LOCAL_WORLD_SIZE="4", MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank in (0, 2)
    ]  # fmt: skip
    for process in started:
        out, err = process.communicate(timeout=40)
        assert "2 of 4 processes did not join within distributed.startup_timeout_seconds=3: ranks 1, 3" in out, err


def test_an_unreachable_store_is_named(processes: Processes, tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(
        "from latentscale.distributed.process_group import join_process_group\n"
        "from latentscale.distributed.topology import Topology\n"
        "from latentscale.errors import Interruption\n"
        "try:\n    "
        "join_process_group(Topology.from_environment(), 2)\nexcept Interruption as error:\n    print(error)\n"
    )
    port = str(free_port())
    finished = processes.run(
        [sys.executable, str(script)], PYTHONPATH=str(ROOT / "platform"), RANK="1", WORLD_SIZE="2", LOCAL_RANK="1",
        LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port, timeout_seconds=60,
    )  # fmt: skip
    assert f"rank 1 could not join the process group at 127.0.0.1:{port} within" in finished.out, finished.err
