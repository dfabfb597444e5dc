"""A run that needs more memory than there is does not start; freed memory stays with the process for the next step."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from layouts import built, noise

from latentscale.config import load_config
from latentscale.errors import UserError
from latentscale.machine_memory import machine_memory
from latentscale.methods.base import Method
from latentscale.methods.registry import METHODS
from latentscale.training.checks import plan_dry_run, plan_run
from latentscale.training.memory import about_memory, least_memory, require_memory
from latentscale.training.step_memory import LiveBytes, step_bytes
from launching import Processes, environment, overrides

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
    assert sum(need.size_bytes for need in least_memory(plan("pvdgan"))) < sum(
        need.size_bytes for need in about_memory(plan("pvdgan"))
    )
    assert sum(need.size_bytes for need in least_memory(plan("pvdgan"))) < 2**26


@pytest.mark.parametrize("processes", [1, 3])
def test_a_run_that_fits_to_the_byte_is_not_refused(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan("pvdgan", "evaluation.images=3000000")
    needs = {need.key: need.size_bytes for need in least_memory(planned)}
    assert needs["evaluation.images"] > needs["training.batch"]
    # rank 0 alone evaluates, and frees the draws before the next one; images wait as bytes
    images = planned.config.data.prefetch_steps * planned.steps.process_batch
    assert needs["data.prefetch_steps"] <= images * (64 + 8 * planned.spec.latent_dim)
    lasting = needs["network"] + needs["data.prefetch_steps"] + needs["data.workers"]
    least = processes * lasting + max(processes * needs["training.batch"], needs["evaluation.images"])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr("latentscale.training.memory.uses_gpu", lambda: False)
    monkeypatch.setattr("latentscale.training.memory.machine_memory", lambda processes: least)
    require_memory(planned)
    monkeypatch.setattr("latentscale.training.memory.machine_memory", lambda processes: least - 1)
    with pytest.raises(UserError, match=r"^evaluation\.images=3000000 needs at least about"):
        require_memory(planned)


MEASURED = """
import resource
import sys
from latentscale.config import load_config
from latentscale.methods.registry import METHODS
from latentscale.training.checks import plan_dry_run
from latentscale.training.loop import train
from latentscale.training.memory import about_memory
kind = METHODS[sys.argv[1]]
config = load_config(kind.Settings, kind.name, {}, sys.argv[2:])
print(sum(need.size_bytes for need in about_memory(plan_dry_run(config, kind))))
train(config, kind)
print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def images64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images64")
    for number in range(64):
        noise(number, (64, 64)).save(folder / f"{number}.png")
    built("folder", folder, folder.with_name("shards64"))
    return folder.with_name("shards64")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ru_maxrss has other units")
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("pvdgan", []),
        ("dlsgan", ["training.precision=bf16", "network.family=skip"]),
        ("invgan", ["network.family=style", "network.mapping_layers=0"]),
    ],
)
def test_about_what_a_run_takes_is_within_half_of_what_it_takes(
    method: str, settings: list[str], images64: Path, processes: Processes, tmp_path: Path
) -> None:
    # narrow networks on many pixels: much memory in little time
    sizes = {"network__widths": "[16,32,32,32]", "network__base_width": 32, "training__batch": 64,
             "distributed__streams": 8, "training__steps": 2, "training__precision": "fp32"}  # fmt: skip
    words = overrides(data__name="shards", data__path=images64, run__dir=tmp_path / "run", **sizes)
    done = processes.run([sys.executable, "-c", MEASURED, method, *words, *settings], MALLOC_TRIM_THRESHOLD_="")
    assert done.code == 0, done.err
    about, taken = (int(line) for line in done.out.splitlines() if line.isdigit())
    assert taken / 1.5 < about < 1.5 * taken


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_sized_for_every_method_without_being_taken(name: str) -> None:
    kind = METHODS[name]
    labels = ["latent.categories=[10]"] if kind.labelled or (kind.categorical and not kind.categories_optional) else []
    sizes = []
    for batch in (32, 320):
        arguments = ["data.name=shards", "data.shape=[3,32,32]", "network.widths=[8]", "distributed.streams=4", *labels]
        config = load_config(kind.Settings, name, {}, [*arguments, f"training.batch={batch}", "latent.dim=8"])
        sizes.append(step_bytes(plan_dry_run(config, kind)))
    # a feature map at 32² for each sample is the least that a backward pass keeps; gradients do not grow
    assert sizes[0] > 32 * 8 * 32 * 32 * 4
    assert 5 * sizes[0] < sizes[1] < 10 * sizes[0]


def test_tensors_that_have_gone_are_not_counted() -> None:
    # a chain of n additions without a graph holds two tensors at once, and one of exponentials with a graph holds all
    with torch.device("meta"), LiveBytes() as chain:
        x = torch.empty(1000)
        for _ in range(10):
            x = x + 1
    assert chain.peak == 2 * 4000
    with torch.device("meta"):
        start = torch.empty(1000, requires_grad=True)
    with torch.device("meta"), LiveBytes() as graph:
        x = start
        for _ in range(10):
            x = x.exp()
    assert graph.peak == 10 * 4000


def test_a_limit_of_the_system_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = machine_memory()
    monkeypatch.setattr("latentscale.machine_memory.resource.getrlimit", lambda kind: (2**22, 2**22))
    assert machine_memory() == 2**22 < whole
    # the system sets it for each process, not for all together
    assert machine_memory(3) == 3 * 2**22
    with pytest.raises(UserError, match=r"this machine has 4\.0 MiB"):
        plan("pvdgan", "training.batch=32768", "distributed.streams=16")
