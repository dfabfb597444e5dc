"""It learns: some hundred steps of what `make train` runs show the trend, and the kept results are the preset's."""

import json
import sys
from pathlib import Path
from statistics import median

import pytest

from latentscale.config import Config
from latentscale.methods.registry import METHODS
from launching import ROOT, Processes, launch_command

REPRODUCTION = ROOT / "recipes" / "reproductions" / "digits"


@pytest.mark.processes
def test_some_hundred_steps_show_the_trend(processes: Processes, tmp_path: Path) -> None:
    command = [
        *launch_command(2, ROOT / "recipes" / "pvdgan.py"), f"run.dir={tmp_path}", "training.steps=300",
        "training.ema_decay=0.98", "evaluation.every_steps=75", "telemetry.tensorboard=false",
        "telemetry.progress=false", "snapshot.every_steps=0",
    ]  # fmt: skip
    finished = processes.run(command, timeout_seconds=280)
    assert finished.code == 0, finished.err
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    evaluations = [record for record in records if "evaluation/psnr_db" in record]
    assert [record["step"] for record in evaluations] == [75, 150, 225, 300]
    first, *_, last = evaluations
    assert last["evaluation/psnr_db"] > first["evaluation/psnr_db"] + 1
    assert last["evaluation/latent_error_median"] < first["evaluation/latent_error_median"] - 0.03
    assert last["evaluation/effective_dimensions"] < first["evaluation/effective_dimensions"]
    # what a user reads at the end
    for part in (
        "latent error",
        "dB PSNR",
        "effective dimensions",
        "pictures:",
        f"latentscale invert {tmp_path} IMAGE…",
    ):
        assert part in finished.out


def test_the_kept_results_are_of_todays_settings_and_meet_the_bars() -> None:
    sys.path.insert(0, str(REPRODUCTION))
    try:
        import compare
    finally:
        sys.path.remove(str(REPRODUCTION))
    kept = json.loads((REPRODUCTION / "results.json").read_text())
    for method, config in kept["config"].items():
        defaults = Config(method=METHODS[method].Settings()).to_dict()
        for section, today in compare.resolved(method, kept["settings"]).items():
            # a key that came later changes nothing as long as it has its default
            then = {**{key: defaults[section][key] for key in today}, **config[section]}
            assert today == then, "settings changed: run `make compare` again"
    assert compare.table(kept["runs"]) == (REPRODUCTION / "results.md").read_text()
    ours = [run for run in kept["runs"] if run["method"] == "pvdgan"]
    assert len({run["seed"] for run in ours}) >= 3
    assert median(run["latent_error_median"] for run in ours) <= 0.35
    for run in ours:
        assert run["gain_db"] >= 6
        assert run["step"] == kept["config"]["pvdgan"]["training"]["steps"]
    assert {run["method"] for run in kept["runs"]} >= {"pvdgan", "dlsgan", "infogan", "msegan"}
