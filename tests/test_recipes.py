"""The recipes' command line: help, dry runs, presets, and refusals in one line with exit status 2."""

import sys
from pathlib import Path

import pytest

from latentscale.config import keys, load_config
from latentscale.methods.registry import METHODS
from latentscale.recipe import dry_run
from launching import ROOT, Processes

PRESETS = ROOT / "recipes" / "presets"


def recipe(processes: Processes, name: str, *arguments: str, **environment: str):
    return processes.run([sys.executable, str(ROOT / "recipes" / f"{name}.py"), *arguments], **environment)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_recipe(name: str) -> None:
    source = (ROOT / "recipes" / f"{name}.py").read_text()
    assert METHODS[name].__name__ in source


def test_help_lists_every_key_and_preset(processes: Processes) -> None:
    finished = recipe(processes, "pvdgan", "--help")
    assert finished.code == 0
    for key in keys(load_config(METHODS["pvdgan"].Settings, "pvdgan")):
        assert f"  {key.name} " in finished.out
    for preset in PRESETS.glob("*.yaml"):
        assert preset.stem in finished.out
    assert "method.encoder_in_generator" not in finished.out  # DLSGAN's own


def test_dry_run_prints_the_plan_and_writes_nothing(processes: Processes, tmp_path: Path) -> None:
    finished = recipe(processes, "pvdgan", "--dry-run", f"run.dir={tmp_path / 'run'}", "training.accumulation=2")
    assert finished.code == 0, finished.err
    for part in (
        "encoder_weight: 1.0",
        "data: 1,500 samples of 1 × 8 × 8",
        "generator: ",
        "global batch 32 images = 8 streams × 4",
        "accumulation 2 × micro-batch 16",
        "8×1",
    ):
        assert part in finished.out
    assert not (tmp_path / "run").exists()


SCRIPT = "python recipes/pvdgan.py"
MODULE = "latentscale train pvdgan"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--dry-run", "preset=afhq256", "training.batch=16"],
        ["training.batch=30"],
        ["--fast"],
        ["preset=afhq"],
        ["distributed.processes=2"],
    ],
    ids=" ".join,
)
def test_the_command_does_what_the_script_does(arguments: list[str], processes: Processes) -> None:
    script = recipe(processes, "pvdgan", *arguments)
    command = processes.run([sys.executable, "-m", "latentscale", "train", "pvdgan", *arguments])
    named = script.out.replace(SCRIPT, MODULE).replace("recipes/pvdgan.py", "-m latentscale train pvdgan")
    assert (command.code, command.out, command.err) == (script.code, named, script.err)
    assert command.code == (0 if arguments[0] in ("--help", "--dry-run") else 2)


def test_an_unknown_recipe_is_refused_by_every_node_once(processes: Processes) -> None:
    def train(**environment: str):
        return processes.run([sys.executable, "-m", "latentscale", "train", "pvgan"], **environment)

    alone = train()
    assert (alone.code, alone.out) == (2, "")
    assert alone.err == "error: latentscale train: there is no recipe 'pvgan': did you mean pvdgan?\n"
    beside = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
    assert (train(**beside).code, train(**beside).err) == (2, "")
    # there is no first process to say it
    for odd in ({"LOCAL_RANK": "2"}, {"LOCAL_RANK": "9" * 30}, {"LOCAL_RANK": "1", "WORLD_SIZE": "1"}):
        assert train(**odd).err == alone.err


def test_without_a_recipe_the_usage_is_shown(processes: Processes) -> None:
    command = [sys.executable, "-m", "latentscale", "train"]
    asked, bare = processes.run([*command, "--help"]), processes.run(command)
    assert (asked.code, bare.code) == (0, 2)
    assert asked.out == bare.out
    assert "latentscale train RECIPE [--dry-run]" in asked.out
    for name in METHODS:
        assert f" {name}" in asked.out


def test_training_does_not_wait_for_the_command_lines_library(processes: Processes) -> None:
    code = (
        "import sys\nfrom latentscale.cli import main\nsys.argv[1:] = ['train', 'pvdgan', '--help']\n"
        "try:\n    main()\nfinally:\n    print(sorted({'typer', 'rich', 'click'} & set(sys.modules)), file=sys.stderr)"
    )
    done = processes.run([sys.executable, "-c", code], interpreter=True)
    assert (done.code, done.err) == (0, "[]\n")


def test_a_script_elsewhere_has_the_presets_of_the_package_or_its_own(processes: Processes, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text((ROOT / "recipes" / "pvdgan.py").read_text())
    command = [sys.executable, str(script), "--dry-run", "preset=mnist32"]
    done = processes.run(command, tmp_path)
    assert done.code == 0, done.err
    assert "preset: mnist32" in done.out
    (tmp_path / "presets").mkdir()
    refused = processes.run(command, tmp_path)
    assert refused.code == 2
    assert str(tmp_path / "presets" / "mnist32.yaml") in refused.err


# published totals in millions: Cho 2025, §4.4.1 and the DLSGAN publication; they count InfoGAN's log-variance head
PUBLISHED = {
    ("infogan", "ffhq256_comparison"): (25.8, 31.7),
    ("infogan", "afhq256"): (25.8, 31.7),
    ("dlsgan", "ffhq256"): (35.4, None),
    ("pvdgan", "afhq256"): (25.8, None),
    ("pvdgan", "ffhq256"): (25.8, None),
}


INVERTING = ("vanilla", "msegan", "infogan", "dlsgan", "pvdgan", "vaegan", "invgan", "autoencoder")


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["ffhq256", "afhq256", "ffhq256_comparison"])
@pytest.mark.parametrize("name", INVERTING)
def test_every_preset_of_inversion_dry_runs_with_every_such_method(name: str, preset: str) -> None:
    method = METHODS[name]
    config = load_config(method.Settings, name, {}, [f"preset={preset}"], PRESETS)
    text = dry_run(config, method)
    sizes = {
        line.split(":")[0]: int(line.split(":")[1].split()[0].replace(",", "")) / 1e6
        for line in text.splitlines()
        if line.endswith("M)")
    }
    for network, published in zip(
        ("generator", "discriminator"), PUBLISHED.get((name, preset), (None, None)), strict=True
    ):
        if published is not None:
            # 31.65 M is published as 31.7: rounded twice
            assert abs(sizes[network] - published) <= 0.06


@pytest.mark.parametrize("name", METHODS)
def test_every_method_dry_runs_on_the_bundled_data(name: str) -> None:
    config = load_config(METHODS[name].Settings, name, {}, ["preset=digits8"], PRESETS)
    assert f"method: {name} (" in dry_run(config, METHODS[name])


@pytest.mark.slow
def test_published_settings() -> None:
    def load(name: str, preset: str):
        return load_config(METHODS[name].Settings, name, {}, [f"preset={preset}"], PRESETS)

    for name in ("pvdgan", "msegan", "infogan"):
        for preset in ("ffhq256", "afhq256", "ffhq256_comparison"):
            if preset == "ffhq256" and name != "pvdgan":
                continue  # those have the settings of DLSGAN's own comparison there
            config = load(name, preset)
            assert (config.optimizer.name, config.optimizer.learning_rate, config.method.r1) == ("adam", 3e-3, 3.0)
            assert (config.training.batch, config.latent.dim, config.network.family) == (8, 1024, "residual")
            assert (config.optimizer.beta1, config.optimizer.beta2) == (0.0, 0.99)
    own = load("dlsgan", "ffhq256")
    assert (own.network.family, own.optimizer.name, own.optimizer.weight_decay) == ("skip", "adamw", 1e-4)
    assert (own.method.r1, own.training.ema_decay) == (10.0, 0.999)
    # epochs over the batch: 100 × 50,000 / 8 and 100 × 16,130 / 8
    assert load("pvdgan", "ffhq256").training.steps == 100 * 50_000 // 8
    assert load("pvdgan", "afhq256").training.steps == 100 * 16_130 // 8


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["training.batch=30"], ["training.batch=30", "distributed.streams=8"]),
        (["training.batch=8"], ["pvdgan splits", "a stream has 1 sample:", "distributed.streams"]),
        (["latent.law=uniform"], ["latent.law=uniform", "normal"]),
        (["training.accumulation=3"], ["training.accumulation=3", "1, 2, 4, 8"]),
        (["distributed.processes=2"], ["distributed.processes=2", "1 started", "accelerate launch"]),
        (["data.name=shards"], ["data.path"]),
        (["data.shape=[3,8,8]"], ["data.shape=[3, 8, 8]", "[1, 8, 8]"]),
        (["network.widths=[]"], ["network.widths"]),
        (["training.compile=nothing"], ["training.compile=nothing"]),
        (
            ["distributed.timeout_seconds=5"],
            ["distributed.timeout_seconds=5", "distributed.heartbeat_seconds=2", "raise the first or lower the second"],
        ),
        (["--fast"], ["--fast", "key=value"]),
        (["distributed.engine=deepspeed", "distributed.zero=3"], ["distributed.zero=3", "gradient penalties"]),
        (["distributed.streams=2048", "training.batch=4096"], ["distributed.streams=2048", "1500"]),
    ],
)
def test_an_impossible_run_is_refused_in_one_line(
    arguments: list[str], parts: list[str], processes: Processes, tmp_path: Path
) -> None:
    finished = recipe(processes, "pvdgan", f"run.dir={tmp_path / 'run'}", *arguments)
    assert finished.code == 2
    lines = finished.err.strip().splitlines()
    assert len(lines) == 1, finished.err
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]
    # refused before anything is written or allocated
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("backend", ["tvm", "openxla"])
def test_a_compiler_that_is_listed_but_not_installed_is_refused_in_one_line(
    backend: str, processes: Processes, tmp_path: Path
) -> None:
    finished = recipe(processes, "pvdgan", f"run.dir={tmp_path / 'run'}", f"training.compile={backend}")
    assert finished.code == 2
    first, line = finished.err.strip().splitlines()
    assert first.startswith("pvdgan on 1,500 samples of digits")
    assert line.startswith(f"error: training.compile={backend} does not work here (")
    assert "or leave it empty" in line


def test_the_silent_single_process_is_noticed(processes: Processes, tmp_path: Path) -> None:
    accelerate = str(Path(sys.executable).with_name("accelerate"))
    finished = processes.run(
        [accelerate, "launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
         "--dynamo_backend", "no", str(ROOT / "recipes" / "pvdgan.py"), "distributed.processes=2",
         f"run.dir={tmp_path / 'run'}"]
    )  # fmt: skip
    assert finished.code != 0
    assert "distributed.processes=2 but 1 started" in finished.err


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, "training.precision=fp32"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "use 0, 1 or 2"),
        ({"ACCELERATE_USE_FSDP": "true"}, "distributed.engine=deepspeed"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "65536"}, "MASTER_PORT=65536"),
    ],
)
def test_what_the_launcher_asks_and_we_would_not_do_is_refused(
    variables: dict[str, str], part: str, processes: Processes, tmp_path: Path
) -> None:
    finished = recipe(processes, "pvdgan", f"run.dir={tmp_path / 'run'}", **variables)
    assert finished.code == 2
    assert part in finished.err
    assert len(finished.err.strip().splitlines()) == 1
