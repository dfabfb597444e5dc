"""The kinds of cases: each makes a wrong input of a seeded generator, and says what would be silently wrong."""

import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import torch
import yaml
from material import CLASSES, Material, case_environment, product
from PIL import Image
from safetensors.torch import load_file, save_file
from wrong_values import changed_bytes, changed_json, wrong_argument, wrong_text

from latentscale.config import Config, keys
from latentscale.methods.registry import METHODS

Check = Callable[[str], str]
"""Takes what a command printed that ended with status 0; returns what is silently wrong, or nothing."""


@dataclass(frozen=True)
class Case:
    """One wrong input.

    Attributes:
        argv: what follows ``python``.
        environment: all of it.
        check: of a command that ended well.
    """

    argv: list[str]
    environment: dict[str, str] = field(default_factory=case_environment)
    check: Check = lambda out: ""


Kind = Callable[[Random, Path, Material], Case]

METHOD_NAMES = ("pvdgan", "vanilla", "cgpgan", "invgan", "acgan", "classifier")
# what a dry run does not need, and a run would spend hours on
_STEPS = "training.steps"


def _specs(method: str) -> dict[str, tuple[Any, Any]]:
    """Every key of a method's recipe with its type and default."""
    return {key.name: (key.spec.type, key.value) for key in keys(Config(method=METHODS[method].Settings()))}


def arguments(random: Random, folder: Path, material: Material) -> Case:
    """One to three wrong arguments of a dry run; what it shows must be what was asked for."""
    method = random.choice(METHOD_NAMES)
    specs = _specs(method)
    given: dict[str, str] = {}
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        name = random.choice(list(specs))
        name = name if random.random() < 0.95 else name + wrong_argument(random)[:20]
        given[name] = wrong_argument(random)

    def check(out: str) -> str:
        shown = yaml.safe_load(out.split("\n\nmethod: ")[0])
        for name, text in given.items():
            value: Any = shown
            for part in name.split("."):
                value = value[part]
            if name in specs and not means(text, specs[name][0], value):
                return f"{name}={text!r} became {value!r}"
        return ""

    return Case(
        product(["train", method, "--dry-run", *(f"{name}={text}" for name, text in given.items())]), check=check
    )


def means(text: str, kind: Any, value: Any) -> bool:
    """Whether a text can stand for a value of a type, read by other rules than the product's."""
    if "${" in text:
        return True
    bare = text.split(" #")[0].strip().strip("'\"") if kind is not str else text
    try:
        if kind is str:
            return value in (text, str(Path(text).expanduser()))
        if kind is bool:
            return bare.lower() in (
                ("true", "yes", "on", "y", "1", "0b1", "0x1", "0o1")
                if value
                else ("false", "no", "off", "n", "0", "-0", "0b0", "0x0", "0o0")
            )
        if kind is int:
            plain = bare.lower().removeprefix("+").replace("_", "")
            return bool(int(plain, 0) == value) and not re.match(r"-?0\d", plain)
        if kind is float:
            plain = bare.lower().replace("_", "")
            return (int(plain, 0) if re.match(r"[+-]?0[xbo]", plain) else float(plain)) == value
    except ValueError:
        return False
    written = yaml.safe_load(text)
    return written == value


def sizes(random: Random, folder: Path, material: Material) -> Case:
    """A run of one step with one or two numbers far beyond what a machine holds, or at the ends of their ranges."""
    numbers = ("0", "1", "2", "3", "-1", "1000000000", "2147483648", "1099511627776", "9223372036854775807",
    "1e-300", "1e300", "1e18", "nan", "inf", "[1099511627776]", "[1,1]",
    "[9223372036854775807,9223372036854775807]", "[1000000000]", "[3,1099511627776,1099511627776]", "[2]",
    "[8]")  # fmt: skip
    method = random.choice(("pvdgan", "vanilla", "cgpgan"))
    specs = {name: kind for name, (kind, _) in _specs(method).items() if kind not in (str, bool) and name != _STEPS}
    changed = [f"{random.choice(list(specs))}={random.choice(numbers)}" for _ in range(random.choice((1, 1, 2)))]
    categories = ["latent.categories=[2]"] if method == "cgpgan" else []
    small = material.settings(training__steps=1, network__family="residual")
    return Case(product(["train", method, f"run.dir={folder / 'run'}", *small, *categories, *changed]))


PRESET = """\
training: {steps: 3, batch: 32, precision: fp32}
latent.dim: 16
network:
  family: residual
  widths: [8, 16]
  base_width: 8
data: {name: digits, shape: [1, 8, 8]}
optimizer: {learning_rate: 1.0e-3, beta1: 0.0}
run.dir: runs/x
methods:
  pvdgan: {method: {r1: 2.5, reconstruction_weight: 1}}
  vanilla: {method: {r1: 1}}
"""
YAML_PIECES = (
    "{}", "[]", "null", "~", "&a ", "*a", "!!set ", "!!int x", ": ", "- ", "\t", "\n", "  ", "<<: *a", "? ",
    "%", "---\n", "...\n", "'", '"', "{", "}", "[", "]", "#", "\x00", "\x07", "${", "${x}", "${run.dir}",
    "training", "methods", "pvdgan", "yes", "1:30", "010", "9" * 5000, "[" * 3000, "- " * 3000, "\ufeff", "é",
    "|\n", ">\n", "!!python/name:os.system", "a: &b [*b]\n", "=", "@", "`",
)  # fmt: skip


def presets(random: Random, folder: Path, material: Material) -> Case:
    """A preset file with changed lines, pieces or bytes."""
    text = PRESET
    for _ in range(random.choice((1, 1, 2, 3))):
        lines = text.splitlines(keepends=True)
        place, spot = random.randrange(len(lines) + 1), random.randrange(len(text) + 1)
        match random.choice(("piece", "piece", "value", "value", "drop", "double", "indent")):
            case "piece":
                text = text[:spot] + random.choice(YAML_PIECES) + text[spot:]
            case "value":
                values = [match.span(1) for match in re.finditer(r": ([^:{}\n,]+)", text)] or [(spot, spot)]
                start, end = random.choice(values)
                text = text[:start] + random.choice((wrong_text(random), random.choice(YAML_PIECES))) + text[end:]
            case "drop":
                text = "".join(lines[:place] + lines[place + 1 :])
            case "double":
                text = "".join(lines[: place + 1] + lines[place:])
            case "indent":
                text = "".join(lines[:place] + ["  " + line for line in lines[place : place + 1]] + lines[place + 1 :])
    content = text.encode(errors="surrogatepass")
    path = folder / "preset.yaml"
    path.write_bytes(changed_bytes(random, content) if random.random() < 0.2 else content)
    return Case(product(["train", random.choice(("pvdgan", "vanilla")), "--dry-run", f"preset={path.name}"]))


VARIABLES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK",
    "OMP_NUM_THREADS", "LATENTSCALE_CACHE", "LATENTSCALE_REMEMBERED_BYTES", "LATENTSCALE_RESTART_COUNT",
    "LATENTSCALE_ENDINGS_FOLDER", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_USE_AGENT_STORE",
    "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_DEEPSPEED_ZERO_STAGE",
    "ACCELERATE_DEEPSPEED_CONFIG_FILE", "ACCELERATE_GRADIENT_CLIPPING", "ACCELERATE_USE_FSDP",
    "ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_USE_CPU",
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "XDG_CACHE_HOME", "HOME", "COLUMNS", "LINES", "TERM",
    "NO_COLOR", "LANG", "LC_ALL", "GLOO_SOCKET_IFNAME", "MALLOC_TRIM_THRESHOLD_",
    "OMEGACONF_MAX_YAML_EXPANDED_NODES", "TMPDIR", "PATH", "TZ",
)  # fmt: skip
LAUNCHER_VARIABLES = (
    "SLURM_NNODES", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_GPUS_ON_NODE", "SLURM_RESTART_COUNT",
    "LATENTSCALE_NODES", "LATENTSCALE_PROCESSES_PER_NODE", "LATENTSCALE_MAIN_ADDRESS", "LATENTSCALE_MAIN_PORT",
    "LATENTSCALE_MAX_RESTARTS", "JOB_COMPLETION_INDEX", "PET_NNODES", "PET_NODE_RANK", "PET_NPROC_PER_NODE",
    "PET_MASTER_PORT",
)  # fmt: skip


def environments(random: Random, folder: Path, material: Material) -> Case:
    """One to three wrong variables, for a dry run, a run of one step, or a launcher's dry run."""
    launcher = random.random() < 0.3
    names = LAUNCHER_VARIABLES if launcher else VARIABLES
    count = random.choice((1, 1, 2, 3))
    variables = {random.choice(names): wrong_argument(random) for _ in range(count)}
    surroundings = {**case_environment(), **variables}
    small = [
        *material.settings(training__steps=1),
        "distributed.startup_timeout_seconds=2",
        "distributed.heartbeat_seconds=0.1",
    ]
    if launcher:
        module = random.choice(("slurm", "kubernetes"))
        command = ["-m", f"latentscale.launching.{module}", "--dry-run", "recipes/pvdgan.py"]
        return Case(command, surroundings)
    if random.random() < 0.6:
        return Case(product(["train", "pvdgan", "--dry-run", *small]), surroundings)
    return Case(product(["train", "pvdgan", f"run.dir={folder / 'run'}", *small]), surroundings)


def dataset_json(random: Random, folder: Path, material: Material) -> Case:
    """A changed dataset.json, for each command that reads one."""
    data = folder / "data"
    shutil.copytree(material.data, data)
    path = data / random.choice(("train", "test")) / "dataset.json"
    _replace(random, path, changed_json)
    return Case(product(_reader(random, data, material, folder)))


def shards(random: Random, folder: Path, material: Material) -> Case:
    """Changed bytes of a shard or its index; ``verify`` must see them."""
    data = folder / "data"
    shutil.copytree(material.data, data)
    path = random.choice(sorted((data / random.choice(("train", "test"))).glob("shard-*")))
    before = path.read_bytes()
    _replace(random, path, changed_bytes)
    changed = not path.is_file() or path.read_bytes() != before
    command = _reader(random, data, material, folder)

    def check(out: str) -> str:
        return "a changed shard is said to be intact" if changed and "all intact" in out else ""

    return Case(product(command), check=check)


def _reader(random: Random, data: Path, material: Material, folder: Path) -> list[str]:
    match random.choice(("verify", "info", "dry run", "train", "split")):
        case "verify":
            return ["shards", "verify", str(data), "--workers", "0"]
        case "info":
            return ["shards", "info", str(data), "--picture", random.choice(("none", str(folder / "sheet.png")))]
        case "split":
            return ["shards", "split", str(data), "--out", str(folder / "split"), "--test", "3"]
        case "dry run":
            return ["train", "pvdgan", "--dry-run", *material.settings(data)]
        case _:
            return ["train", "acgan", f"run.dir={folder / 'new'}", *material.settings(data, training__steps=1)]


def run_folders(random: Random, folder: Path, material: Material) -> Case:
    """A run's folder with a changed file, continued or used."""
    run = folder / "run"
    shutil.copytree(material.run, run)
    checkpoint = sorted((run / "checkpoints").iterdir())[-1]
    path = random.choice((
        checkpoint / "state.json", checkpoint / "state.json", checkpoint / "state.safetensors", run / "metrics.jsonl",
        run / "config.yaml", run / "model" / "config.json", run / "model" / "config.json",
        *sorted((run / "model").glob("*.safetensors")),
    ))  # fmt: skip
    in_model = path.parent.name == "model"
    wrong_numbers = False
    if path.suffix == ".safetensors" and random.random() < 0.6:
        wrong_numbers = _change_tensor(random, path)
    else:
        _replace(random, path, changed_bytes if path.suffix in (".safetensors", ".jsonl", ".yaml") else changed_json)
    if in_model or random.random() < 0.2:
        image = str(material.images / "test" / CLASSES[0] / "0.png")
        command = ["invert", str(run), image, "--out", str(folder / "inverted")]
    else:
        command = ["train", "pvdgan", f"run.dir={run}", *material.settings(training__steps=3)]

    def check(out: str) -> str:
        results = folder / "inverted" / "latents.npz"
        if results.exists() and not np.isfinite(np.load(results)["psnr_db"]).all():
            return "the reconstruction is not finite, and nothing is said"
        return "weights that are not finite are used" if wrong_numbers and in_model else ""

    return Case(product(command), check=check)


def _change_tensor(random: Random, path: Path) -> bool:
    """Change one tensor of a file; whether it now holds numbers that are not finite."""
    tensors = load_file(path)
    name = random.choice(sorted(tensors))
    tensor, spoilt = tensors[name], False
    match random.choice(("nan", "inf", "shape", "type", "missing", "more", "empty")):
        case "nan" | "inf" if tensor.is_floating_point() and tensor.numel():
            tensor.view(-1)[random.randrange(tensor.numel())] = random.choice((float("nan"), float("inf")))
            spoilt = True
        case "shape":
            tensors[name] = tensor.reshape(-1)[: random.randrange(tensor.numel() + 1)].clone()
        case "type":
            tensors[name] = tensor.to(random.choice((torch.int64, torch.float16, torch.bool, torch.float64)))
        case "missing":
            del tensors[name]
        case "empty":
            tensors.clear()
        case _:
            tensors[name + "x"] = tensor.clone()
    save_file(tensors, path)
    return spoilt


def images(random: Random, folder: Path, material: Material) -> Case:
    """A changed image file of some format among good ones, built or inverted."""
    tree = folder / "images"
    shutil.copytree(material.images, tree)
    ending, mode = random.choice((
        ("png", "L"), ("png", "P"), ("png", "RGBA"), ("png", "I;16"), ("jpg", "L"), ("jpg", "CMYK"), ("gif",
        "P"), ("bmp", "RGB"), ("tif", "L"), ("tif", "LAB"), ("tif", "F"), ("webp", "RGB"), ("ppm", "RGB"),
        ("tga", "RGB"), ("ico", "RGB"), ("avif", "RGB"),
    ))  # fmt: skip
    path = tree / "train" / CLASSES[0] / f"odd.{ending}"
    Image.new(mode, (8, 8)).save(path)
    if random.random() < 0.9:
        path.write_bytes(changed_bytes(random, path.read_bytes()))
    if random.random() < 0.3:
        return Case(product(["invert", str(material.run), str(path), "--out", str(folder / "inverted")]))
    options = random.choice(
        ([], ["--on-error", "skip"], ["--resolution", "8"], ["--on-error", "skip", "--resolution", "8"])
    )
    build = ["shards", "build", "folder", str(tree), "--out", str(folder / "built"), "--workers", "0", *options]
    return Case(product(build))


def label_files(random: Random, folder: Path, material: Material) -> Case:
    """A changed file of labels beside good images."""
    names = sorted(str(path.relative_to(material.images)) for path in material.images.rglob("*.png"))
    pairs = [[name, number % 2] for number, name in enumerate(names)]
    if random.random() < 0.5:
        path = folder / "labels.json"
        path.write_bytes(changed_json(random, str({"labels": pairs}).replace("'", '"').encode()))
    else:
        path = folder / "labels.csv"
        table = "file,label\n" + "".join(f"{name},{label}\n" for name, label in pairs)
        path.write_bytes(changed_bytes(random, table.encode()))
    build = ["shards", "build", "folder", str(material.images), "--out", str(folder / "built"), "--workers", "0"]
    return Case(product([*build, "--labels", str(path)]))


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def files_of_images(random: Random, folder: Path, material: Material) -> Case:
    """A changed tar, parquet or NumPy file of eight images with labels; whatever is not read must be said."""
    source, name = random.choice((
        ("tar", "a.tar"), ("tar", "outer.tar"), ("parquet", "a.parquet"), ("npz", "a.npz"), ("npz", "packed.npz"),
        ("npz", "images.npy"),
    ))  # fmt: skip
    encoded = sorted((material.images / "train").rglob("*.png"))[:8]
    images = [path.read_bytes() for path in encoded]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in encoded])
    labels = [number % 3 for number in range(8)]
    place = folder / "in" / name
    place.parent.mkdir()
    match name:
        case "a.tar" | "outer.tar":
            members = {f"{n}.png": image for n, image in enumerate(images)}
            members |= {f"{n}.cls": b"%d" % n for n in labels[:3]} | {
                f"{n}.cls": b"%d" % labels[n] for n in range(3, 8)
            }
            place.write_bytes(_tar({"n0.tar": _tar(members)} if name == "outer.tar" else members))
        case "a.parquet":
            features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["x", "y", "z"]}}
            described = {"huggingface": json.dumps({"info": {"features": features}})}
            table = pyarrow.table({"image": images, "label": labels}).replace_schema_metadata(described)
            parquet.write_table(table, place, row_group_size=3)
        case "images.npy":
            np.save(place, pixels)
        case _:
            (np.savez if name == "a.npz" else np.savez_compressed)(place, images=pixels, labels=np.array(labels))
    _replace(random, place, changed_bytes)
    options = random.choice(([], [], ["--on-error", "skip"], ["--labels", "none"], ["--split", "none"]))
    given = str(place if random.random() < 0.7 else place.parent)
    build = ["shards", "build", source, given, "--out", str(folder / "built"), "--workers", "0", *options]

    def check(out: str) -> str:
        whole = "train: 8 images" in out
        return "" if whole or "note: ignored" in out or "left out" in out else f"images are missing: {out[-300:]!r}"

    return Case(product(build), check=check)


OPTIONS = {
    "build": ("--resolution", "--workers", "--shard-size", "--fit", "--format", "--quality",
    "--png-compression", "--max-errors", "--seed", "--split", "--labels", "--channels", "--pad", "--out",
    "--licence", "--name", "--on-error", "--subset", "--patches", "--patch-size", "--count", "--means",
    "--deviation", "--probabilities"), "split": ("--folds", "--fold", "--fractions", "--test", "--seed",
    "--shard-size", "--out"), "info": ("--picture",),
    "verify": ("--workers",),
    "invert": ("--out", "--batch-images", "--picture-images", "--device"),
}  # fmt: skip


def options(random: Random, folder: Path, material: Material) -> Case:
    """A wrong option of a command."""
    name = random.choice(list(OPTIONS))
    given = []
    for _ in range(random.choice((1, 1, 2))):
        given += [random.choice(OPTIONS[name]), wrong_argument(random)]
    image = str(material.images / "test" / CLASSES[0] / "0.png")
    match name:
        case "build":
            source = random.choice(
                ("folder", "folder", "folder", "clusters", "imagenet-patches", wrong_argument(random))
            )
            path = [] if source == "clusters" else [str(material.images)]
            command = ["shards", "build", source, *path, "--out", str(folder / "built"), "--workers", "0", *given]
            command += ["--count", "50"] if source == "clusters" and "--count" not in given else []
        case "invert":
            command = ["invert", str(material.run), image, "--out", str(folder / "inverted"), *given]
        case "split":
            command = ["shards", "split", str(material.data), "--out", str(folder / "split"), *given]
        case _:
            command = ["shards", name, str(material.data), *given]
    return Case(product(command))


def _replace(random: Random, path: Path, change: Callable[[Random, bytes], bytes]) -> None:
    """Change a file's content; now and then replace it with a pipe or a folder, or remove it."""
    content, kind = path.read_bytes(), random.random()
    if kind > 0.12:
        path.write_bytes(change(random, content))
        return
    path.unlink()
    if kind < 0.03:
        os.mkfifo(path)
    elif kind < 0.06:
        path.mkdir()
    elif kind < 0.09:
        path.symlink_to(random.choice(("nowhere", path.name, "/")))


KINDS: dict[str, Kind] = {
    "arguments": arguments,
    "presets": presets,
    "environments": environments,
    "sizes": sizes,
    "dataset.json": dataset_json,
    "shards": shards,
    "run folders": run_folders,
    "images": images,
    "label files": label_files,
    "files of images": files_of_images,
    "options": options,
}
