"""What is refused of a remote before anything of it is read."""

from pathlib import Path

import pytest

from latentscale.config import load_config
from latentscale.errors import UserError
from latentscale.methods.pvdgan import PVDGAN
from latentscale.training.checks import plan_run
from launching import overrides


@pytest.mark.parametrize(
    ("processes", "path", "retry_seconds", "refused"),
    [
        (2, "http://127.0.0.1:9/data", 600, True),
        (2, "http://127.0.0.1:9/data", 700, True),
        (1, "http://127.0.0.1:9/data", 600, False),
        (2, "nowhere/data", 600, False),
        (2, "foo://nowhere", 599, False),
    ],
)
def test_no_process_tries_a_remote_again_for_longer_than_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, path: str, retry_seconds: float, refused: bool
) -> None:
    if processes > 1:
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("LOCAL_RANK", "0")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    arguments = overrides(
        run__dir=tmp_path,
        data__name="shards",
        data__path=path,
        data__retry_seconds=retry_seconds,
        distributed__timeout_seconds=600,
    )
    # a dead remote would be tried for as long
    monkeypatch.setattr("latentscale.training.checks.open_dataset", unreadable)
    with pytest.raises(UserError) as error:
        plan_run(load_config(PVDGAN.Settings, "pvdgan", {"preset": ""}, arguments), PVDGAN)
    told = f"data.retry_seconds={retry_seconds:g} is not less than distributed.timeout_seconds=600"
    assert (told in str(error.value)) == refused
    assert refused or str(error.value) == "there is no such data"


def unreadable(*arguments: object) -> None:
    raise UserError("there is no such data")
