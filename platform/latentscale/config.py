"""The whole configuration of a run: typed, merged by OmegaConf; an error names the key.

Sources, the later overriding the earlier: the defaults here, the recipe's, ``preset=NAME``, ``key=value`` on the
command line.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, get_args

from omegaconf import DictConfig, OmegaConf

from latentscale.config_values import flattened, is_reference, read_preset, reading, resolved, value_of
from latentscale.data.data_settings import DataSettings
from latentscale.distributed.deepspeed_settings import contradiction
from latentscale.errors import UserError
from latentscale.latents.priors import LAWS
from latentscale.local_paths import home_expanded, refuse_url
from latentscale.methods.base import MethodSettings
from latentscale.networks.factory import NetworkSettings
from latentscale.settings import LONGEST_SECONDS, allowed_range, check_ranges, setting
from latentscale.value_types import converted
from latentscale.wording import shown

_LONGEST_NAME = 100


@dataclass
class RunSettings:
    dir: str = setting(
        "runs/latentscale", "the run's folder; a run that is already in it is continued", may_change=True, is_path=True
    )
    seed: int = setting(0, "seed of the weights, the draws and the order of the data", minimum=0, maximum=2**63 - 1)
    restart: bool = setting(False, "move an existing folder aside and start over", may_change=True)
    start_from: str = setting(
        "",
        "folder of another run, from which a new run takes the weights, v and P(C) that have the same shapes; all else"
        " begins anew",
        may_change=True,
        is_path=True,
    )
    start_weights: str = setting(
        "averaged",
        "which weights of run.start_from: averaged, or raw, those of its last checkpoint",
        choices=("averaged", "raw"),
        may_change=True,
    )


@dataclass
class LatentSettings:
    dim: int = setting(256, "d_z, size of the latent vector", minimum=1)
    categories: list[int] = setting(
        factory=list,
        help="number of categories of each label, e.g. [10] or [3,2,2]; labelled methods use those of the data",
        minimum=1,
    )
    law: str = setting("normal", "prior of each element; a dynamic scale needs mean 0 and variance 1", choices=LAWS)
    quantile: str = setting(
        "", "for law=custom: quantile function of the prior on torch tensors, as package.module:function"
    )


@dataclass
class OptimizerSettings:
    name: str = setting("adam", "optimizer of each phase", choices=("adam", "adamw"))
    learning_rate: float = setting(3e-3, "step size", above=0, may_change=True)
    epoch_decay: float = setting(
        1.0, "factor on all learning rates after each epoch of the data", above=0, maximum=1, may_change=True
    )
    beta1: float = setting(0.0, "decay rate of the first moment", minimum=0, maximum=0.999999)
    beta2: float = setting(0.99, "decay rate of the second moment", minimum=0, maximum=0.999999)
    epsilon: float = setting(1e-8, "added to the square root of the second moment", above=0)
    gradient_clipping: float = setting(
        0.0, "largest norm of each phase's reduced gradient, scaled down where larger; 0: no clipping", minimum=0
    )
    weight_decay: float = setting(0.0, "weight decay: decoupled for adamw, added to the gradient for adam", minimum=0)


@dataclass
class TrainingSettings:
    steps: int = setting(10_000, "length of the run", unit="steps", minimum=1, may_change=True)
    batch: int = setting(32, "global batch size, over all processes and accumulation", unit="images", minimum=1)
    accumulation: int = setting(1, "micro-batches per process and optimizer step", minimum=1, may_change=True)
    precision: str = setting(
        "fp32", "bf16 is autocast over fp32 weights; fp64 is for numerical checks", choices=("fp32", "bf16", "fp64")
    )
    ema_decay: float = setting(0.999, "decay per step of the moving average of the weights", minimum=0, maximum=1)
    compile: str = setting("", "torch.compile backend for the phases, e.g. inductor; empty: eager", may_change=True)
    report_every_steps: int = setting(
        50, "interval of reports in metrics.jsonl and TensorBoard", unit="steps", minimum=1, may_change=True
    )
    max_nonfinite_steps: int = setting(
        20,
        "stop after this many consecutive skipped (non-finite) steps",
        unit="steps",
        minimum=1,
        may_change=True,
    )


@dataclass
class DistributedSettings:
    streams: int = setting(
        0,
        "number of streams that the batch, data and draws are divided into; 0: min(8, batch // 2)",
        minimum=0,
        maximum=2**20,
    )
    engine: str = setting(
        "ddp", "engine that averages gradients over processes", choices=("ddp", "deepspeed"), may_change=True
    )
    zero: int = setting(
        0,
        "DeepSpeed's ZeRO stage, 0 to 2: 1 partitions optimizer states over processes, 2 also gradients",
        minimum=0,
        may_change=True,
    )
    offload_optimizer: bool = setting(
        False, "keep optimizer states and steps on the CPU; needs engine=deepspeed with zero=1 or 2", may_change=True
    )
    processes: int = setting(
        0, "required number of processes, otherwise the run does not start; 0: any", minimum=0, may_change=True
    )
    timeout_seconds: float = setting(
        300.0,
        "end the run if a process sends no heartbeat, or a collective waits, for this long",
        unit="seconds",
        above=0,
        maximum=LONGEST_SECONDS,
        may_change=True,
    )
    startup_timeout_seconds: float = setting(
        600.0,
        "the same until the first step is taken: joining, reading, compiling",
        unit="seconds",
        above=0,
        maximum=LONGEST_SECONDS,
        may_change=True,
    )
    heartbeat_seconds: float = setting(
        2.0,
        "interval at which each process sends a heartbeat",
        unit="seconds",
        above=0,
        maximum=LONGEST_SECONDS,
        may_change=True,
    )
    divergence_every_steps: int = setting(
        500,
        "interval of comparing checksums of weights and statistics over processes; 0: only before checkpoints",
        unit="steps",
        minimum=0,
        may_change=True,
    )


@dataclass
class CheckpointSettings:
    every_steps: int = setting(
        1000, "interval of checkpoints; 0: only at the end and when stopped", unit="steps", minimum=0, may_change=True
    )
    keep: int = setting(3, "number of newest checkpoints to keep", minimum=1, may_change=True)


@dataclass
class SnapshotSettings:
    every_steps: int = setting(
        500, "interval of pictures; 0: only at the end", unit="steps", minimum=0, may_change=True
    )
    images: int = setting(24, "number of real images shown", unit="images", minimum=1, may_change=True)


@dataclass
class EvaluationSettings:
    every_steps: int = setting(
        0, "interval of evaluations; 0: only at the end", unit="steps", minimum=0, may_change=True
    )
    images: int = setting(
        1024, "number of draws, and largest number of real images", unit="images", minimum=2, may_change=True
    )


@dataclass
class TelemetrySettings:
    tensorboard: bool = setting(True, "write TensorBoard events into the run's folder", may_change=True)
    progress: bool = setting(True, "show a progress line on the terminal", may_change=True)


@dataclass
class Config:
    preset: str = setting(
        "", "name of a preset beside the recipes, or path of a YAML file; empty: none", may_change=True, is_path=True
    )
    run: RunSettings = field(default_factory=RunSettings)
    data: DataSettings = field(default_factory=DataSettings)
    latent: LatentSettings = field(default_factory=LatentSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    method: MethodSettings = field(default_factory=MethodSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    distributed: DistributedSettings = field(default_factory=DistributedSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    snapshot: SnapshotSettings = field(default_factory=SnapshotSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)

    def to_yaml(self) -> str:
        """The resolved configuration as ``config.yaml`` keeps it."""
        return OmegaConf.to_yaml(OmegaConf.structured(self))

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration as plain nested dictionaries."""
        container = OmegaConf.to_container(OmegaConf.structured(self), resolve=True)
        assert isinstance(container, dict)
        return {str(key): value for key, value in container.items()}


class Key(NamedTuple):
    """One leaf of the configuration."""

    name: str
    value: Any
    spec: Field[Any]


def keys(settings: Any, prefix: str = "") -> Iterator[Key]:
    """Every leaf of a configuration, in the order of its dataclasses."""
    for spec in fields(settings):
        value = getattr(settings, spec.name)
        if is_dataclass(value):
            yield from keys(value, f"{prefix}{spec.name}.")
        else:
            yield Key(prefix + spec.name, value, spec)


def load_config(
    method_settings: type[MethodSettings],
    method_name: str = "",
    recipe: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
    presets: Path | None = None,
    launched: Mapping[str, Any] | None = None,
) -> Config:
    """Merge defaults ← recipe ← preset ← ``key=value`` arguments, and check each value on its own.

    Args:
        method_settings: the dataclass of the method's own keys, which become ``method.*``.
        method_name: selects the preset's ``methods.NAME`` section, if it has one.
        recipe: dotted keys to values; its ``preset`` is used unless the arguments name another.
        arguments: ``key=value`` strings.
        presets: folder of the preset files.
        launched: dotted keys to the launcher's values, which no other source may contradict.

    Raises:
        UserError: an unknown key, a wrong type or a value out of range; names the key.
    """
    config = OmegaConf.structured(Config(method=method_settings()))
    known = {key.name: key.spec.type for key in keys(Config(method=method_settings()))}
    for name, value in (recipe or {}).items():
        config = _set(config, known, name, value, f"{name}={shown(value)}")
    given = [_split(argument) for argument in arguments]
    preset = [str(config.preset), *(value for name, value in given if name == "preset")][-1]
    given_names = {*(recipe or {}), *(name for name, _ in given)}
    if preset:
        for name, value in read_preset(home_expanded(preset, "preset"), method_name, presets):
            given_names.add(name)
            config = _set(config, known, name, value, f"preset {shown(preset)}: {shown(name)}={shown(value)}")
    for name, text in given:
        # a string is taken literally (007 is a folder's name); OmegaConf parses numbers, booleans, lists
        value = text if known.get(name, str) is str else value_of(name, text, known[name])
        config = _set(config, known, name, value, f"{shown(name)}={shown(text)}")
    for name, value in (launched or {}).items():
        if name in given_names and OmegaConf.select(config, name) != value:
            raise contradiction(name, value, OmegaConf.select(config, name))
        config = _set(config, known, name, value, f"{name}={value}")
    loaded = resolved(config)
    assert isinstance(loaded, Config)
    for name, value, spec in keys(loaded):
        converted(f"{name}={shown(value)}", spec.type, value)
    check_ranges(loaded)
    _check_paths(loaded)
    return loaded


def _check_paths(settings: Any, prefix: str = "") -> None:
    """Replace ``~`` at the beginning of every path, in place; refuse URLs where they cannot be used."""
    for spec in fields(settings):
        value, name = getattr(settings, spec.name), f"{prefix}{spec.name}"
        if is_dataclass(value):
            _check_paths(value, f"{name}.")
        elif spec.metadata.get("is_path"):
            if not spec.metadata["may_be_url"]:
                refuse_url(value, f"{name}=", "name one instead")
            setattr(settings, spec.name, home_expanded(value, name))


def changed_keys(old: Mapping[str, Any], new: Config) -> list[str]:
    """The keys that changed although a continued run may not change them: ``key: old → new``, one entry per key.

    A key that only the old configuration has, such as one of another method, counts too.
    """
    new_names = {key.name for key in keys(new)}
    # a run from a release without a key was trained with its default
    defaults = {key.name: key.value for key in keys(Config(method=type(new.method)()))}
    changes = [f"{name}: {value} → (absent)" for name, value in flattened(old) if name not in new_names and value != {}]
    for key in keys(new):
        if key.spec.metadata.get("may_change"):
            continue
        before: Any = old
        for part in key.name.split("."):
            before = before.get(part, defaults[key.name]) if isinstance(before, Mapping) else before
        if before != key.value:
            changes.append(f"{key.name}: {before} → {key.value}")
    return changes


def describe_keys(config: Config) -> list[tuple[str, str, str, str]]:
    """Every key with its type, default and one line (unit and range included), for ``--help``."""
    rows = []
    for name, value, spec in keys(config):
        meta = spec.metadata
        notes = "; ".join(part for part in (meta.get("unit", ""), allowed_range(spec)) if part)
        text = meta.get("help", "") + (f" [{notes}]" if notes else "")
        kind = spec.type.__name__ if isinstance(spec.type, type) else str(spec.type)
        if isinstance(value, list):
            kind = "list of numbers" if float in get_args(spec.type) else "list of integers"
        rows.append((name, kind, "(empty)" if value in ("", []) else str(value), text))
    return rows


def given_keys(arguments: Sequence[str]) -> dict[str, str]:
    """The keys of a command line with their values as text, unchecked; the last of several counts."""
    return {name.lstrip("-"): value for name, _, value in (argument.partition("=") for argument in arguments)}


def _split(argument: str) -> tuple[str, str]:
    name, equals, value = argument.partition("=")
    if not equals or not name:
        raise UserError(f"'{shown(argument)}' must be key=value, such as training.steps=1000 (--help lists the keys)")
    return name.lstrip("-"), value


def _set(config: DictConfig, known: Mapping[str, Any], name: str, value: Any, source: str) -> DictConfig:
    """The configuration with one key set; ``config`` itself is no longer to be used, as it may have been changed.

    Args:
        known: every key's default, by name.
        source: where the value comes from, and the value, for messages.
    """
    if name not in known:
        section = [key for key in known if key.startswith(name + ".")]
        if section and value == {}:
            return config
        if section:
            raise UserError(f"{source}: '{name}' is a section: set one of its keys, such as {section[0]}")
        near = get_close_matches(name[:_LONGEST_NAME], known, n=1, cutoff=0.5)
        # the most common mistake is a key without its section, or with another section
        near = [key for key in known if key.split(".")[-1] == name.split(".")[-1]][:1] or near
        hint = f"did you mean {near[0]}?" if near else "--help lists the keys"
        raise UserError(f"{source}: unknown key '{shown(name)}': {hint}")
    with reading(source, "give the value itself"):
        if not is_reference(value):
            value = converted(source, known[name], value)
        # of the whole configuration, all but a section would be copied for nothing
        section_name, _, leaf = name.rpartition(".")
        container = config[section_name] if section_name else config
        merged = OmegaConf.merge(container, {leaf: value})
        assert isinstance(merged, DictConfig)
        if not section_name:
            return merged
        config[section_name] = merged
        return config
