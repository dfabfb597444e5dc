"""Who is missing, worked out by hand; and real processes whose store or peers go away."""

import sys
from pathlib import Path

import pytest

from latentscale.distributed.heartbeat import FINISHED, LOST, Roll, Word
from launching import ROOT, Processes, free_port

SILENCE, BEAT = 30.0, 2.0


def word(beat: int, step: int = 0, end: str = "", host: str = "a", stage: str = "data") -> Word:
    return Word(beat, step, stage, host, end)


def roll_of(count: int) -> Roll:
    return Roll(count, 0.0)


def verdict(roll: Roll, now: float, stuck: float | None = None) -> str:
    found = roll.verdict(now, SILENCE, BEAT, stuck)
    return found.text if found else ""


def test_nobody_is_missing_while_all_speak() -> None:
    roll = roll_of(2)
    for beat in range(1, 40):
        for rank in (0, 1):
            roll.hear(rank, word(beat), 2.0 * beat)
        assert verdict(roll, 2.0 * beat) == ""


def test_who_repeats_the_same_word_for_long_is_silent_and_named_with_host_and_step() -> None:
    roll = roll_of(4)
    for rank, host in enumerate("aabb"):
        roll.hear(rank, word(1, step=100 + rank, host=host), 1.0)
    for now in (10.0, 30.9, 31.0):
        for rank in (0, 1):
            roll.hear(rank, word(int(now), host="a"), now)
        for rank in (2, 3):
            roll.hear(rank, word(1, step=100 + rank, host="b"), now)
        if now < 31:
            assert verdict(roll, now) == ""
    assert verdict(roll, 31.0) == (
        "nothing heard from ranks 2, 3 on b (last at step 102, data) for 30 s: killed, stopped or cut off"
    )


def test_the_ranks_that_are_silent_are_told_apart_from_the_words() -> None:
    roll = roll_of(3)
    for now in (1.0, 40.0):
        roll.hear(1, word(int(now)), now)
    found = roll.verdict(40.0, SILENCE, BEAT)
    assert found is not None
    assert found.gone == [0, 2]


def test_where_no_process_comes_further_for_long_all_are_named() -> None:
    roll = roll_of(2)
    for now in (1.0, 10.0, 59.0, 60.0):
        roll.hear(0, word(int(now), step=9, stage="generator"), now)
        roll.hear(1, word(int(now), step=8, stage="data"), now)
    assert verdict(roll, 60.0) == ""  # collectives that time out tell it elsewhere
    assert verdict(roll, 60.0, stuck=59.5) == ""
    assert verdict(roll, 60.5, stuck=59.5) == (
        "no process has come further for 60 s: ranks 0, 1 on a (last at step 9, generator)"
    )
    roll.hear(1, word(99, step=8, stage="discriminator"), 60.5)
    assert verdict(roll, 61.0, stuck=59.5) == ""


def test_after_a_lost_connection_silence_is_shorter() -> None:
    roll = roll_of(3)
    for rank in range(3):
        roll.hear(rank, word(1), 1.0)
    roll.hear(1, word(2, end=LOST), 2.0)
    for now in (2.0, 4.0, 6.0, 8.0, 9.9):
        roll.hear(0, word(int(now)), now)
        assert verdict(roll, now) == ""
    assert verdict(roll, 10.0).startswith("nothing heard from rank 2 on a ")


def test_who_went_at_one_moment_is_named_together_and_who_is_only_late_is_not() -> None:
    roll = roll_of(4)
    roll.hear(0, word(1), 31.0)
    roll.hear(1, word(1), 1.0)  # the last words of the two that went were read one beat and a half apart
    roll.hear(2, word(1), 4.0)
    roll.hear(3, word(1), 5.1)
    assert verdict(roll, 30.9) == ""
    assert verdict(roll, 31.0).startswith("nothing heard from ranks 1, 2 on a ")


def test_who_speaks_but_does_not_come_is_named() -> None:
    roll = roll_of(3)
    for rank in (0, 2):
        roll.hear(rank, word(1, step=9, end=LOST), 1.0)
    roll.hear(1, word(5, step=8, stage="discriminator"), 8.9)
    assert verdict(roll, 8.9) == ""
    assert verdict(roll, 9.0) == (
        "rank 1 on a (last at step 8, discriminator) did not come to a collective that the others waited in"
    )


def test_why_a_process_ended_is_told_at_once_and_a_finished_one_is_not_missed() -> None:
    roll = roll_of(3)
    roll.hear(1, word(1, end=FINISHED), 1.0)
    for rank in (0, 2):
        roll.hear(rank, word(40), 100.0)
    assert verdict(roll, 101.0) == ""
    roll.hear(2, word(41, end="UserError: no such shard"), 102.0)
    assert verdict(roll, 102.0) == "rank 2 ended: UserError: no such shard"


def test_all_that_lost_one_another_say_so() -> None:
    roll = roll_of(2)
    for rank in (0, 1):
        roll.hear(rank, word(3, end=LOST), 3.0)
    assert verdict(roll, 11.0) == "all processes have lost contact with one another"


def test_rank_zero_is_silent_where_the_store_answers_and_unreachable_where_it_does_not() -> None:
    roll = roll_of(3)
    roll.hear(0, word(1, step=9), 1.0)
    for answered, told in ((31.0, "nothing heard from rank 0 on a "), (3.0, "rank 0 unreachable")):
        assert roll.verdict_on_rank_zero(30.9, SILENCE, answered, BEAT) is None
        found = roll.verdict_on_rank_zero(31.0, SILENCE, answered, BEAT)
        assert found is not None
        assert found.text.startswith(told)
        assert found.gone == [0]


HANGS = """
import os, sys, threading, time
import torch.distributed as dist
from latentscale.distributed.ending import end_interrupted
from latentscale.distributed.process_group import join_process_group
from latentscale.distributed.heartbeat import HeartbeatMonitor
from latentscale.distributed.topology import Topology
topology = Topology.from_environment()
join_process_group(topology, 20)
with HeartbeatMonitor(topology.rank, 0.2, 1.5, end_interrupted) as presence:
    presence.step = 7
    print("there", flush=True)
    leaves = os.environ["RANK"] in os.environ["LEAVES"].split(",")
    threading.Event().wait(1.0 if leaves else 30)
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
        ("stops", 2, "nothing heard from rank 2 on"),
        ("is killed", 1, "nothing heard from rank 1 on"),
        ("stops", 0, "rank 0"),
        ("is killed", 0, "rank 0 unreachable"),
    ],
)
def test_processes_whose_main_thread_hangs_end_naming_who_has_gone(
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


def test_the_first_process_of_a_node_that_is_left_says_it_and_even_where_no_word_can_be_left(
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
    assert "nothing heard from ranks 1, 2 on" in said[0][0]
    assert said[3] == []


def test_a_process_that_does_not_come_is_named(processes: Processes, tmp_path: Path) -> None:
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
        assert "2 of 4 processes did not come within distributed.startup_timeout_seconds=3: ranks 1, 3" in out, err


def test_a_store_that_is_not_there_is_named(processes: Processes, tmp_path: Path) -> None:
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
    assert f"rank 1 cannot meet the others at 127.0.0.1:{port} within" in finished.out, finished.err
