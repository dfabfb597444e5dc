"""What a launcher or a user puts into the environment, and what is refused there."""

import pytest

from latentscale.data.memory_cache import memory_cache_bytes
from latentscale.distributed.process_group import join_process_group
from latentscale.distributed.topology import Topology
from latentscale.errors import UserError
from latentscale.launching.platforms import count_processes, options_from_environment
from latentscale.launching.restarts import restart_count

WRONG = ("x", "-1", "1.5", "nan", "inf", "²", "٣", "1_0", "9" * 30, "9" * 5000, "0x1", "1 1", "\x1b[1m", "\udcff")


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_a_rank_that_is_no_integer_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"WORLD_SIZE": "4", name: value})
    with pytest.raises(
        UserError, match=rf"^{name}=.* must be an integer from [01] to \d+: correct or unset"
    ) as refusal:
        Topology.from_environment()
    assert str(refusal.value).isprintable()
    assert Topology.processes_launched() == 1


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "0"), ("RANK", "4"), ("LOCAL_RANK", "4")])
def test_a_rank_out_of_range_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"WORLD_SIZE": "4", name: value})
    with pytest.raises(UserError, match=f"^{name}={value} in the environment"):
        Topology.from_environment()


def test_what_is_empty_or_unset_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"WORLD_SIZE": "", "RANK": " 0 "})
    assert Topology.from_environment() == Topology(0, 1, 0)


@pytest.mark.parametrize("port", ["65536", "0", "-1", "x", "²", "9" * 30, ""])
def test_a_port_out_of_range_is_named(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", port)
    with pytest.raises(UserError, match="MASTER_PORT"):
        join_process_group(Topology(0, 2, 0), 1.0)


@pytest.mark.parametrize("value", WRONG)
def test_a_number_of_bytes_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"LATENTSCALE_REMEMBERED_BYTES": value})
    with pytest.raises(UserError, match=r"^LATENTSCALE_REMEMBERED_BYTES="):
        memory_cache_bytes()


@pytest.mark.parametrize("value", WRONG)
def test_launchers_name_their_variable(value: str) -> None:
    with pytest.raises(UserError, match=r"^NODES="):
        options_from_environment({"nodes": ("NODES",)}, {}, {"NODES": value}, count_processes)
    # a count that nobody can read does not keep a run from starting
    assert restart_count({"LATENTSCALE_RESTART_COUNT": value}) == 0
