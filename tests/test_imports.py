"""Nothing on any path imports a `platform` that is ours: it would shadow the standard library's and break torch."""

import sys
import sysconfig
from pathlib import Path

import pytest

from launching import ROOT, Processes, accelerate_command

PROBE = """
import platform, latentscale, sys
assert hasattr(platform, 'python_implementation'), platform
print('platform is', platform.__file__)
"""


def standard(output: str) -> bool:
    return f"platform is {sysconfig.get_path('stdlib')}" in output


def test_platform_is_an_import_root_and_no_package() -> None:
    assert (ROOT / "platform" / "latentscale" / "__init__.py").is_file()
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_pytest_sees_the_standard_platform() -> None:
    import platform

    assert str(platform.__file__).startswith(sysconfig.get_path("stdlib"))


@pytest.mark.parametrize("folder", [ROOT, ROOT / "recipes", ROOT / "platform"], ids=["root", "recipes", "platform"])
@pytest.mark.parametrize("how", ["-c", "-m", "script"])
def test_python_sees_the_standard_platform(how: str, folder: Path, tmp_path: Path, processes: Processes) -> None:
    probe = tmp_path / "probe_platform.py"
    probe.write_text(PROBE)
    command = {
        "-c": ["-c", PROBE],
        "-m": ["-m", "probe_platform"],
        "script": [str(probe)],
    }[how]
    finished = processes.run([sys.executable, *command], cwd=folder, interpreter=True, PYTHONPATH=str(tmp_path))
    assert finished.code == 0, finished.err
    assert standard(finished.out)


def test_accelerate_launch_sees_the_standard_platform(tmp_path: Path, processes: Processes) -> None:
    probe = tmp_path / "probe_platform.py"
    probe.write_text(PROBE)
    command = [part for part in accelerate_command(2, probe) if "=" not in part]
    finished = processes.run(command)
    assert finished.code == 0, finished.err
    assert finished.out.count("platform is") == 2
    assert standard(finished.out)


def test_a_package_named_platform_is_what_would_break(tmp_path: Path, processes: Processes) -> None:
    # the control: with an __init__.py in platform/, the same probe from the root does break
    package = tmp_path / "platform"
    package.mkdir()
    (package / "__init__.py").touch()
    finished = processes.run([sys.executable, "-c", PROBE], cwd=tmp_path, interpreter=True)
    assert finished.code != 0
