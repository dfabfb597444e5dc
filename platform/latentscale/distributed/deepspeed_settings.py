"""DeepSpeed's settings: from `distributed.*`, or translated from `accelerate launch --use_deepspeed`.

This module does not import DeepSpeed.
"""

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latentscale.errors import UserError
from latentscale.regular_files import read_json

WHY_NOT_ZERO_3 = (
    "ZeRO 3 partitions the weights and gathers them only in DeepSpeed's own forward call, where gradient penalties are"
    " silently wrong: use 0, 1 or 2"
)


def check_engine(*, engine: str, zero: int, offload_optimizer: bool, precision: str) -> None:
    """Check that the engine supports the settings.

    Raises:
        UserError: it does not; names the key and the remedy.
    """
    if engine == "ddp":
        for key, value in (("zero", zero), ("offload_optimizer", offload_optimizer)):
            if value:
                raise UserError(
                    f"distributed.{key}={str(value).lower()} needs DeepSpeed, but distributed.engine=ddp: set"
                    " distributed.engine=deepspeed, or leave it out"
                )
        return
    if zero == 3:
        raise UserError(f"distributed.zero=3: {WHY_NOT_ZERO_3}")
    if zero not in (0, 1, 2):
        raise UserError(f"distributed.zero={zero} is not a supported ZeRO stage: use 0, 1 or 2")
    if offload_optimizer and zero == 0:
        raise UserError(
            "distributed.offload_optimizer=true: ZeRO 0 keeps the optimizer on the device of the weights: set"
            " distributed.zero=1 or 2"
        )
    if precision == "fp64":
        raise UserError(
            "training.precision=fp64: DeepSpeed does not reduce float64 gradients: set distributed.engine=ddp"
        )
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError(
            "distributed.engine=deepspeed needs DeepSpeed, which is not installed: pip install 'latentscale[deepspeed]'"
        )


def launcher_settings(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The settings of ``accelerate launch --use_deepspeed …``, or of its DeepSpeed file, as our keys.

    Returns:
        ``distributed.engine``, ``distributed.zero``, ``distributed.offload_optimizer`` and, if gradients are clipped,
        ``optimizer.gradient_clipping``; empty without DeepSpeed.

    Raises:
        UserError: names a setting that recipes do not support.
    """
    if environment.get("ACCELERATE_USE_DEEPSPEED", "").lower() not in ("true", "1", "yes"):
        return {}
    options = {name: environment[variable] for name, variable in _OPTIONS.items() if variable in environment}
    settings = {name: (f"accelerate launch has {name}={value}", value) for name, value in options.items()}
    file = environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if file.lower() not in ("none", ""):
        for name, value in _read(Path(file)):
            source = f"{file}: {name}={json.dumps(value)}"
            if name in options and str(value).lower() not in ("auto", options[name].lower()):
                raise UserError(f"{source}, but {settings[name][0]}: give both the same value, or only one of them")
            if name not in settings or str(value) != "auto":
                settings[name] = source, str(value)
    for name, (source, value) in settings.items():
        if name in _REMEDIES and value.lower() not in _HARMLESS[name]:
            raise UserError(f"{source}: {_REMEDIES[name]}")
    source, stage = settings.get(_STAGE, ("", "2"))  # Accelerate's own default
    if stage == "auto":
        stage = "2"
    if stage == "3":
        raise UserError(f"{source}: {WHY_NOT_ZERO_3}")
    if stage not in ("0", "1", "2"):
        raise UserError(f"{source} is not a supported ZeRO stage: use 0, 1 or 2")
    source, device = settings.get(_OFFLOAD, ("", "none"))
    if device.lower() not in ("none", "auto", "cpu"):
        raise UserError(f"{source}: the optimizer can be offloaded to the CPU only: use cpu or none")
    found: dict[str, Any] = {
        "distributed.engine": "deepspeed",
        "distributed.zero": int(stage),
        "distributed.offload_optimizer": device.lower() == "cpu",
    }
    source, clipping = settings.get(_CLIPPING, ("", "none"))
    if clipping.lower() not in (*_NONE, "0", "0.0"):
        try:
            found["optimizer.gradient_clipping"] = float(clipping)
        except ValueError:
            raise UserError(f"{source}: give a number, the largest gradient norm, or 0 for no clipping") from None
    return found


def require_launcher_settings(chosen: Mapping[str, Any]) -> None:
    """Check that a run's settings are those of the launcher.

    Raises:
        UserError: names the first key that differs.
    """
    for key, value in launcher_settings().items():
        if chosen[key] != value:
            raise contradiction(key, value, chosen[key])


def contradiction(key: str, launched: Any, given: Any) -> UserError:
    """The error for a key that differs from the launcher's setting."""
    theirs, ours = (str(value).lower() for value in (launched, given))
    return UserError(
        f"{key}={ours}, but accelerate launch, with its options and configuration files, has {key}={theirs}: set only"
        " one of them"
    )


def clear_launcher_environment() -> None:
    """Clear the environment variables that would make Accelerate drive DeepSpeed itself."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") is None:
        return
    for variable in list(os.environ):
        if variable.startswith("ACCELERATE_DEEPSPEED_") or variable in _FORGOTTEN:
            del os.environ[variable]


def _read(path: Path) -> Iterator[tuple[str, Any]]:
    """The supported settings of a DeepSpeed file, by the names of the launcher's options."""
    try:
        content = read_json(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: give accelerate launch another deepspeed_config_file") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): launchers/deepspeed has examples") from None
    for key, value in _flatten(content):
        if key not in _KEYS:
            remedy = _INSTEAD.get(key.split(".")[0], "leave it out; launchers/deepspeed has examples")
            raise UserError(f"{path}: {key} is not supported in this file: {remedy}")
        yield _KEYS[key], value


def _flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        raise UserError(
            f"a DeepSpeed configuration must be an object with settings by name, got {tree!r}: launchers/deepspeed has"
            " examples"
        )
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


_STAGE, _OFFLOAD, _CLIPPING = "zero_stage", "offload_optimizer_device", "gradient_clipping"
_OPTIONS = {
    _STAGE: "ACCELERATE_DEEPSPEED_ZERO_STAGE",
    _OFFLOAD: "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE",
    "offload_param_device": "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE",
    _CLIPPING: "ACCELERATE_GRADIENT_CLIPPING",
    "gradient_accumulation_steps": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
}
_KEYS = {
    "zero_optimization.stage": _STAGE,
    "zero_optimization.offload_optimizer.device": _OFFLOAD,
    "zero_optimization.offload_param.device": "offload_param_device",
    "gradient_clipping": _CLIPPING,
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "train_batch_size": "train_batch_size",
    "train_micro_batch_size_per_gpu": "train_micro_batch_size_per_gpu",
    "bf16.enabled": "bf16",
    "fp16.enabled": "fp16",
}
_NONE = ("", "none", "auto")
_HARMLESS = {
    "offload_param_device": _NONE,
    "gradient_accumulation_steps": (*_NONE, "1"),
    "train_batch_size": _NONE,
    "train_micro_batch_size_per_gpu": _NONE,
    "bf16": (*_NONE, "false"),
    "fp16": (*_NONE, "false"),
}
_REMEDIES = {
    "offload_param_device": "offloading weights is not supported: use none",
    "gradient_accumulation_steps": "set training.accumulation=N, and give the launcher 1",
    "train_batch_size": "set training.batch=N (over all processes), and use auto here",
    "train_micro_batch_size_per_gpu": "it follows from training.batch and training.accumulation: use auto",
    "bf16": "phases use autocast themselves, over float32 weights: set training.precision=bf16, and use auto here",
    "fp16": "only fp32 and bf16 are supported: use auto here, and set training.precision=bf16",
}
_INSTEAD = {
    "optimizer": "set the recipe's optimizer.* instead",
    "scheduler": "set the recipe's optimizer.epoch_decay instead",
}
_FORGOTTEN = (
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_CONFIG_DS_FIELDS",
    "ACCELERATE_GRADIENT_CLIPPING",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
)
