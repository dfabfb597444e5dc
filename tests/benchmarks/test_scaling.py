"""The computations of bench-scaling on numbers worked out by hand, and a short run of its real processes and links."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from math import log2
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from bench_scaling import Measured, Row, bars, drawn_anew, elements_of_a_step, measure, remarks, row, tally
from links import Place, links, loopback_places, ours, remove_left_behind, why_no_links
from network_time import Link, buckets, exposed_seconds, ring_bytes, ring_seconds, tree_seconds, two_level_seconds
from scaling_page import MEASURED, PAGE, fit, planned, render, traffic, without_memory
from scaling_process import PHASES, SleepingPVDGAN, configuration
from torch import nn
from worker_groups import stop, worker_groups

from latentscale.training.checks import plan_dry_run
from latentscale.training.method_building import network_sizes
from launching import ROOT, environment
from skipping import refused

BITS_PER_SECOND = 1e8


@pytest.fixture(scope="module")
def obstacle() -> str:
    """Why the network cannot be slowed here; in CI it can."""
    reason = why_no_links()
    if reason and (why := refused(reason)):
        pytest.fail(why)
    return reason


def test_a_ring_sends_every_byte_about_twice() -> None:
    link = Link(100.0, 0.5)
    assert ring_bytes(1, 400) == 0
    assert ring_bytes(4, 400) == 600
    # 600 bytes at 100 a second, and 6 hops of half a second
    assert ring_seconds(4, 400, link) == pytest.approx(6 + 3)
    # the same bytes, 2 · 2 hops
    assert tree_seconds(4, 400, link) == pytest.approx(6 + 2)


def test_two_levels_add_up() -> None:
    inside, between = Link(100.0), Link(10.0, 1.0)
    assert two_level_seconds(4, 8, 400, inside, between) == ring_seconds(4, 400, inside)
    # within nodes of 4: 600 bytes at 100; between 2 nodes: 2 · ½ · 100 bytes at 10, 2 hops of 1 s
    assert two_level_seconds(8, 4, 400, inside, between) == pytest.approx(6 + 10 + 2)
    with pytest.raises(ValueError, match="fill"):
        two_level_seconds(9, 4, 400, inside, between)


def test_what_is_left_after_backward() -> None:
    # buckets full after 1, 2 and 4 s of 4; each takes 1 s for 10 bytes: sent at 2, 3 and 4 + 2
    assert exposed_seconds([10, 10, 20], 4.0, lambda size: size / 10) == pytest.approx(2)
    # a slow network: they queue, 1 + 3 + 3 + 6 = 13
    assert exposed_seconds([10, 10, 20], 4.0, lambda size: 3 * size / 10) == pytest.approx(9)
    assert exposed_seconds([10], 4.0, lambda size: 0.0) == 0


@pytest.mark.parametrize("phase", [0, 1])
def test_buckets_are_those_of_ddp(phase: int) -> None:
    parameters = list(reversed(list(without_memory(planned("pvdgan", "afhq256")).phases[phase].parameters())))
    if phase == 1:  # the last
        parameters.insert(0, nn.Parameter(torch.zeros(2 + 1 + 1024, device="meta")))
    groups, _ = dist._compute_bucket_assignment_by_size(parameters, [2**20, 25 * 2**20])
    theirs = [sum(4 * parameters[index].numel() for index in group) for group in groups]
    assert len(theirs) > 2
    assert list(traffic("pvdgan", "afhq256").phases.values())[phase] == theirs
    assert buckets([40, 20]) == [60]


def some(processes: int, step: list[list[float]], bare: list[list[float]], elements: list[int]) -> Measured:
    count = len(step)
    return Measured(
        processes, step, bare, [[0.02, 0.02]] * count, [[0.001, 0.003]] * count, [[900.0, 1100.0]] * count, elements
    )


def test_a_row_is_worked_out_within_rounds() -> None:
    # the second round was slow for both, but their difference was not
    found = row(
        some(
            2, [[0.121, 0.123], [0.221, 0.223], [0.122, 0.124]], [[0.12, 0.12], [0.22, 0.22], [0.12, 0.12]], [70, 30, 9]
        ),
        gradient_elements=100,
        sleep_seconds=0.1,
        bytes_per_second=20_000.0,
    )
    assert (found.gradient_bytes, found.other_bytes) == (400, 36)
    assert found.ring_bytes == 436
    assert found.ring_seconds == pytest.approx(0.02)
    assert found.overhead_seconds == pytest.approx(0.002)
    assert (found.lowest_seconds, found.highest_seconds) == pytest.approx((0.002, 0.003))
    assert found.step_seconds == pytest.approx(0.123)
    assert found.beyond_seconds == pytest.approx(0.123 - 0.1 - 0.02)
    assert found.against_itself_seconds == pytest.approx(0.002)
    assert found.own_cpu_seconds == pytest.approx(0.002)
    assert found.sent_bytes == 1000


def test_a_row_refuses_collectives_that_cannot_be() -> None:
    with pytest.raises(RuntimeError, match="collectives"):
        row(some(2, [[1, 1]], [[1, 1]], [50]), 100, 0.1, None)
    with pytest.raises(RuntimeError, match="collectives"):
        row(some(1, [[1, 1]], [[1, 1]], [100]), 100, 0.1, None)
    assert elements_of_a_step([[5, 3, 5, 3, 5, 3]] * 2) == [5, 3]
    with pytest.raises(RuntimeError, match="different"):
        elements_of_a_step([[5, 5, 5], [5, 5, 3]])


def rows(overheads: tuple[float, ...], on_cores: tuple[float, ...] = (0.001, 0.001, 0.001)) -> list[Row]:
    return [
        Row(count, 0.1, 0.1, 0, 0, 0, 0, None, 0, overhead, 0, 0, cores, 0, 0)
        for count, overhead, cores in zip((1, 2, 4), overheads, on_cores, strict=True)
    ]


def test_bars_distinguish_logarithmic_from_faster_growth() -> None:
    steady = (0.0010, 0.0015, 0.0020)
    # as the number of processes: increments of 0.5 and 1 ms
    growing = (0.0005, 0.0010, 0.0020)
    large = (0.0021, 0.0015, 0.0010)

    def missed(*each: tuple[float, ...], cores: int = 4) -> list[int]:
        return [number for number, bar in enumerate(bars(rows(*each), cores)) if bar.verdict == "MISS"]

    # of each measure: three shares, twice the growth since one process, once how it bends; three are only shown
    assert len(bars(rows(steady), 4)) == 15
    assert missed(steady) == []
    assert missed(growing) == [4, 5]
    assert missed(large) == [0]
    assert missed(steady, growing) == [10, 11]
    assert missed(steady, large) == [6]
    # doublings that add more and more, but less than one process costs
    assert missed((0.0010, 0.0012, 0.0019)) == [5]
    # where four processes share two cores, growth by the clock is not judged
    assert missed(growing, cores=2) == [4]
    assert missed(steady, growing, cores=2) == [10, 11]
    judged = bars(rows(growing), 4)
    assert judged[4].value == pytest.approx((0.0020 - 3 * 0.0005) / 0.1)
    assert judged[5].value == pytest.approx(0.0005 / 0.1)
    assert "MISS" in judged[5].line()
    assert "PASS" in judged[0].line()
    assert tally(judged) == "10 of 12 bars passed, 3 not judged"
    assert tally(bars(rows(growing), 2)) == "10 of 11 bars passed, 4 not judged"


@pytest.mark.slow
def test_resampled_rounds_show_what_is_within_noise() -> None:
    # own 1, 2 … 9 ms in turn, in all groups; one of four processes never has more than 1 ms
    found = [some(1, [[0.1 + 0.001 * n] * 2 for n in range(1, 10)], [[0.1] * 2] * 9, [])]
    found.append(some(4, [[0.101] * 2] * 9, [[0.1] * 2] * 9, [100]))

    def to_row(measured: Measured) -> Row:
        return row(measured, 100, 0.1, None)

    drawn = drawn_anew(found, to_row)
    assert len(drawn) == 1000
    assert all(each[1].overhead_seconds == pytest.approx(0.001) for each in drawn)
    medians = [each[0].overhead_seconds for each in drawn]
    assert min(medians) < 0.004 < 0.006 < max(medians)
    judged = bars([to_row(each) for each in found], 4, drawn)
    shares = judged[:2]
    # the median of nine numbers 1 … 9 drawn with repetition is 3 … 7 in nine of ten draws
    assert shares[0].low == pytest.approx(0.003 / 0.103, rel=0.01)
    assert shares[0].high == pytest.approx(0.007 / 0.107, rel=0.01)
    assert (shares[0].within_noise, shares[1].within_noise) == (False, False)
    shares[0].most = 0.05
    assert shares[0].within_noise
    (_, unsure) = remarks([to_row(each) for each in found], 4, shares)
    assert unsure.endswith("these verdicts are within noise: platform's own, 1 processes / step")


def test_the_fit_goes_through_the_doublings() -> None:
    made = [{"processes": count, "overhead_seconds": 0.001 + 0.0002 * log2(count)} for count in (1, 2, 4)]
    assert fit(made) == pytest.approx((0.001, 0.0002))
    # noise must not promise that more processes cost less
    falling = [{"processes": count, "overhead_seconds": 0.003 - 0.001 * log2(count)} for count in (1, 2, 4)]
    assert fit(falling) == pytest.approx((0.002, 0.0))


@pytest.fixture
def places(obstacle: str) -> Iterator[list[Place]]:
    if obstacle:
        yield loopback_places(2)
        return
    with links(2, BITS_PER_SECOND) as made:
        yield made
    assert not [name for name in ours() if f"-{os.getpid()}-" in name]


@pytest.mark.processes
def test_processes_are_timed_and_their_bytes_are_those_of_the_formula(places: list[Place], tmp_path: Path) -> None:
    compute_seconds, calibrated = 0.02, []
    with worker_groups(places, (1, 2), tmp_path, compute_seconds) as started:
        for each in started:
            calibrated += each.all("calibrate")
        alone, two = measure(started, rounds=1, steps=10)
        ended = stop(started)
    assert ended == [[0], [0, 0]]
    sizes = network_sizes(plan_dry_run(configuration(tmp_path, 0), SleepingPVDGAN))
    assert alone.elements == []
    # two flags, a count and 64 sums are piggybacked on the generator's gradients
    assert sorted(two.elements) == sorted([sizes["discriminator"], sizes["generator"] + 2 + 1 + 64])
    bytes_per_second = BITS_PER_SECOND / 8 if places[0].slowed else None
    found = [row(each, sum(sizes.values()), compute_seconds, bytes_per_second) for each in (alone, two)]
    # sleeps are shortened by the measured overshoot, which was larger while the machine was busy
    least_seconds = compute_seconds - PHASES * max(reply["plain_overshoot_seconds"] for reply in calibrated)
    for each in found:
        assert each.step_seconds > 0.95 * least_seconds
        assert each.bare_seconds > 0.95 * least_seconds
    if bytes_per_second is not None:
        assert found[1].ring_seconds is not None
        # the link's burst is free; headers and acknowledgements are not
        assert found[1].reduce_seconds > 0.75 * found[1].ring_seconds
        assert 1 <= found[1].sent_bytes / found[1].ring_bytes < 1.2


@pytest.mark.processes
def test_an_interrupt_removes_the_namespaces(obstacle: str, tmp_path: Path) -> None:
    if obstacle:
        pytest.skip(obstacle)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "benchmarks" / "bench_scaling.py"), "--out", str(tmp_path)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:

        def mine() -> list[str]:
            return [name for name in ours() if f"-{process.pid}-" in name]

        wait_until(lambda: len(mine()) == 5)  # four processes and their hub; the probe before has one process
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "interrupted" in errors
    assert mine() == []
    assert not list(tmp_path.iterdir())


def wait_until(true: object, seconds: float = 60) -> None:
    assert callable(true)
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_a_killed_process_left_is_removed(obstacle: str) -> None:
    if obstacle:
        pytest.skip(obstacle)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, kept = f"latentscale-bench-{gone.pid}-0", f"latentscale-bench-{os.getpid()}-x"
    for name in (left, kept):
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        remove_left_behind()
        assert left not in ours()
        assert kept in ours()
    finally:
        for name in (left, kept):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.slow
def test_the_page_is_what_the_kept_figures_and_the_presets_give() -> None:
    kept = json.loads(MEASURED.read_text())
    assert PAGE.read_text() == render(kept), "regenerate it: python tests/benchmarks/scaling_page.py"
    assert render(kept, compute_seconds=0.05) != PAGE.read_text()


def test_the_page_shows_the_verdicts_and_remarks_of_the_run() -> None:
    page = PAGE.read_text()
    words = " ".join(page.split())
    # the run's output ends with verdicts and remarks
    printed = MEASURED.with_suffix(".txt").read_text().splitlines()
    verdicts = ("  PASS ", "  MISS ", "  not judged ")
    first = next(number for number, line in enumerate(printed) if line.startswith(verdicts))
    judged = [line for line in printed[first:] if line.startswith(verdicts)]
    assert len(judged) == 15
    for each in judged:
        verdict, name, value, nine_in_ten, *bound = re.split(" {2,}", each.strip())
        most = bound[0].replace("<=", "≤") if bound else ""
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
        assert [cell.strip(" *") for cell in line.strip("|").split("|")][1:] == [
            value,
            nine_in_ten,
            most,
            verdict,
        ]
    said = printed[first + len(judged) : -1]
    assert all(f"{remark}." in words for remark in said)
    assert f"load average before it was {json.loads(MEASURED.read_text())['machine']['load_average']:g}" in words


def test_remarks_report_a_busy_machine() -> None:
    quiet = rows((0.001, 0.001, 0.001))
    (beyond,) = remarks(quiet, cores=4)
    assert beyond.startswith("What is beyond sleep and gradients")
    (_, shared) = remarks(quiet, cores=2)
    assert shared.startswith("4 processes share 2 cores: what they compute at once then takes 2 times as long")
    quiet[1].against_itself_seconds = -0.0015
    (_, busy) = remarks(quiet, cores=4)
    assert busy == "A step differed from itself by 1.5%: the machine was busy, and no verdict is worth much"


@pytest.mark.slow
def test_a_presets_traffic_is_its_parameters() -> None:
    found = traffic("pvdgan", "afhq256")
    assert found.carried_bytes == 4 * sum(found.parameters.values()) + found.statistics_bytes
    assert found.statistics_bytes == 4 * (2 + 1 + 1024)
    assert (found.prepared_bytes, found.most_streams, found.least_images) == (0, 4, 2)
    # means of the labels of 10 categories, and their count
    assert traffic("cgpgan", "afhq256_cgpgan").prepared_bytes == 4 * (10 + 1)


@pytest.mark.slow
def test_the_kept_figures_describe_themselves() -> None:
    kept = json.loads(MEASURED.read_text())
    assert kept["machine"]["rounds"] >= 7
    assert kept["network"]["bits_per_second"] == BITS_PER_SECOND

    def to_row(measured: Measured) -> Row:
        parameters, sleep_seconds = sum(kept["parameters"].values()), kept["sleep"]["seconds_a_step"]
        return row(measured, parameters, sleep_seconds, BITS_PER_SECOND / 8)

    found = [Measured(**each) for each in kept["measured"]]
    judged = bars([to_row(each) for each in found], kept["machine"]["cores"], drawn_anew(found, to_row))
    assert [(bar["low"], bar["high"]) for bar in kept["bars"]] == [(bar.low, bar.high) for bar in judged]
    assert [bar["name"] for bar in kept["bars"]] == [bar.name for bar in judged]
    assert [bar["verdict"] for bar in kept["bars"]] == [bar.verdict for bar in judged]
    assert [to_row(each) for each in found] == [Row(**each) for each in kept["rows"]]
