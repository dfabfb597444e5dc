"""What may be asked of DeepSpeed, by `distributed.*` or by `accelerate launch --use_deepspeed`, which we translate.

Nothing here imports DeepSpeed.
"""

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from latentscale.errors import UserError

WHY_NOT_ZERO_3 = (
    "ZeRO 3 parts the weights, which only DeepSpeed's own call joins, and through that call gradient penalties are"
    " silently wrong: use 0, 1 or 2"
)


def check_engine(*, engine: str, zero: int, offload_optimizer: bool, precision: str) -> None:
    """Refuse an engine that cannot do what is asked of it.

    Raises:
        UserError: naming the key and the remedy.
    """
    if engine == "ddp":
        for key, value in (("zero", zero), ("offload_optimizer", offload_optimizer)):
            if value:
                raise UserError(
                    f"distributed.{key}={str(value).lower()} is DeepSpeed's, and distributed.engine=ddp: give"
                    " distributed.engine=deepspeed too, or leave it out"
                )
        return
    if zero == 3:
        raise UserError(f"distributed.zero=3: {WHY_NOT_ZERO_3}")
    if zero not in (0, 1, 2):
        raise UserError(f"distributed.zero={zero} is no stage of ZeRO: use 0, 1 or 2")
    if offload_optimizer and zero == 0:
        raise UserError(
            "distributed.offload_optimizer=true: ZeRO 0 keeps the optimizer where the weights are: give"
            " distributed.zero=1 or 2"
        )
    if precision == "fp64":
        raise UserError("training.precision=fp64: DeepSpeed joins no float64 gradients: give distributed.engine=ddp")
    if importlib.util.find_spec("deepspeed") is None:
        raise UserError(
            "distributed.engine=deepspeed needs DeepSpeed, which is not installed: pip install 'latentscale[deepspeed]'"
        )


def launcher_settings(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What ``accelerate launch --use_deepspeed …``, or the DeepSpeed file it was given, says, as our keys.

    Returns:
        ``distributed.engine``, ``distributed.zero``, ``distributed.offload_optimizer`` and, where gradients are to be
        clipped, ``optimizer.gradient_clipping``; empty without DeepSpeed.

    Raises:
        UserError: naming what was asked that a recipe does not do.
    """
    if environment.get("ACCELERATE_USE_DEEPSPEED", "").lower() not in ("true", "1", "yes"):
        return {}
    asked = {name: environment[variable] for name, variable in _OPTIONS.items() if variable in environment}
    said = {name: (f"accelerate launch asks for {name}={value}", value) for name, value in asked.items()}
    file = environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if file.lower() not in ("none", ""):
        for name, value in _read(Path(file)):
            told = f"{file}: {name}={json.dumps(value)}"
            if name in asked and str(value).lower() not in ("auto", asked[name].lower()):
                raise UserError(f"{told}, and {said[name][0]}: give both the same, or one of them")
            if name not in said or str(value) != "auto":
                said[name] = told, str(value)
    for name, (told, value) in said.items():
        if name in _REMEDIES and value.lower() not in _HARMLESS[name]:
            raise UserError(f"{told}: {_REMEDIES[name]}")
    told, stage = said.get(_STAGE, ("", "2"))  # Accelerate's own default
    if stage == "auto":
        stage = "2"
    if stage == "3":
        raise UserError(f"{told}: {WHY_NOT_ZERO_3}")
    if stage not in ("0", "1", "2"):
        raise UserError(f"{told} is no stage of ZeRO: use 0, 1 or 2")
    told, device = said.get(_OFFLOAD, ("", "none"))
    if device.lower() not in ("none", "auto", "cpu"):
        raise UserError(f"{told}: the optimizer can be offloaded to cpu alone: give cpu or none")
    found: dict[str, Any] = {
        "distributed.engine": "deepspeed",
        "distributed.zero": int(stage),
        "distributed.offload_optimizer": device.lower() == "cpu",
    }
    told, clipping = said.get(_CLIPPING, ("", "none"))
    if clipping.lower() not in (*_NONE, "0", "0.0"):
        try:
            found["optimizer.gradient_clipping"] = float(clipping)
        except ValueError:
            raise UserError(f"{told}: give a number, the largest norm of a gradient, or 0 for no clipping") from None
    return found


def require_launcher_settings(chosen: Mapping[str, Any]) -> None:
    """Refuse a run that is set up otherwise than the launcher says.

    Raises:
        UserError: naming the first key that differs.
    """
    for key, value in launcher_settings().items():
        if chosen[key] != value:
            raise contradiction(key, value, chosen[key])


def contradiction(key: str, launched: Any, given: Any) -> UserError:
    """The launcher says one thing and a key another."""
    said, ours = (str(value).lower() for value in (launched, given))
    return UserError(
        f"{key}={ours}, but accelerate launch, by its options or the configuration files it was given, says"
        f" {key}={said}: leave the one or the other out"
    )


def clear_launcher_environment() -> None:
    """Clear what Accelerate would take for an order to drive DeepSpeed itself."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") is None:
        return
    for variable in list(os.environ):
        if variable.startswith("ACCELERATE_DEEPSPEED_") or variable in _FORGOTTEN:
            del os.environ[variable]


def _read(path: Path) -> Iterator[tuple[str, Any]]:
    """The settings of a DeepSpeed file that we know, by the names of the launcher's options."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: give accelerate launch another deepspeed_config_file") from None
    except ValueError as error:
        raise UserError(f"{path} is not readable as JSON ({error}): see launchers/deepspeed") from None
    for key, value in _flatten(content):
        if key not in _KEYS:
            ours = _INSTEAD.get(key.split(".")[0], "leave it out; launchers/deepspeed shows what is")
            raise UserError(f"{path}: {key} is not read from there: {ours}")
        yield _KEYS[key], value


def _flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        raise UserError(f"a DeepSpeed configuration holds settings by name, not {tree!r}: see launchers/deepspeed")
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
    "offload_param_device": "weights stay where they are used: give none",
    "gradient_accumulation_steps": "give training.accumulation=N, and 1 to the launcher",
    "train_batch_size": "give training.batch=N (of all processes), and auto here",
    "train_micro_batch_size_per_gpu": "it follows from training.batch and training.accumulation: give auto",
    "bf16": "phases autocast by themselves, over float32 weights: give training.precision=bf16, and auto here",
    "fp16": "phases know fp32 and bf16 alone: give auto, and training.precision=bf16",
}
_INSTEAD = {
    "optimizer": "give optimizer.* to the recipe",
    "scheduler": "give optimizer.epoch_decay to the recipe",
}
_FORGOTTEN = (
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_CONFIG_DS_FIELDS",
    "ACCELERATE_GRADIENT_CLIPPING",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
)
