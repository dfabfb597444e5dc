"""A run that needs more memory than there is does not start; freed memory stays with the process for the next step."""

import subprocess
import sys

import pytest

from latentscale.config import load_config
from latentscale.errors import UserError
from latentscale.methods.base import Method
from latentscale.methods.registry import METHODS
from latentscale.training.checks import plan_dry_run, plan_run
from latentscale.training.memory import least_memory, machine_memory
from launching import environment, overrides

PAGES = 4 * 2**20 // 4096
SCRIPT = f"""
import resource
import torch
from latentscale.training.memory import keep_freed_memory

torch.set_num_threads(1)
keep_freed_memory()
for turn in range(60):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones({2**20 // 4}) for _ in range(4)]  # four of 1 MiB: {PAGES} pages
    del blocks
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 50)
"""


def faults_a_turn(**extra: str) -> float:
    command = [sys.executable, "-c", SCRIPT]
    return float(subprocess.run(command, env=environment(**extra), capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_step_faults_in_no_page_again_unless_the_environment_asks_for_it() -> None:
    assert faults_a_turn() < PAGES / 50
    assert faults_a_turn(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > PAGES / 2


def plan(method: str, *arguments: str, dry: bool = False):
    kind: type[Method] = METHODS[method]
    config = load_config(kind.Settings, kind.name, {}, [*overrides(), *arguments])
    return (plan_dry_run if dry else plan_run)(config, kind)


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("training.batch=64000000000", "training.batch"),
        ("latent.dim=20000000000", "latent.dim"),
        ("network.widths=[3000000]", "network.widths"),
        ("network.base_width=3000000000", "network.base_width"),
        ("network.widths=[9000000000000000000]", "network.widths"),
        ("latent.dim=9000000000000000000", "latent.dim"),
        ("evaluation.images=60000000000", "evaluation.images"),
        ("data.prefetch_steps=5000000000", "data.prefetch_steps"),
        ("data.workers=3000000", "data.workers"),
    ],
)
def test_more_memory_than_there_is_is_refused_by_its_key(argument: str, key: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}=\S+ (needs at least about [\d,.]+ TiB|is too large)") as refusal:
        plan("vanilla", argument)
    assert str(refusal.value).isprintable()


def test_another_machine_may_have_the_memory() -> None:
    # a dry run says what the run is, here too
    assert sum(need.size_bytes for need in least_memory(plan("vanilla", "data.workers=3000000", dry=True))) > 2**45


def test_what_a_run_needs_at_least_is_less_than_it_takes() -> None:
    assert sum(need.size_bytes for need in least_memory(plan("pvdgan"))) < 2**26


def test_a_limit_of_the_system_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = machine_memory()
    monkeypatch.setattr("latentscale.training.memory.resource.getrlimit", lambda kind: (2**22, 2**22))
    assert machine_memory() == 2**22 < whole
    with pytest.raises(UserError, match=r"this machine has 4\.0 MiB"):
        plan("pvdgan", "training.batch=32768", "distributed.streams=16")
