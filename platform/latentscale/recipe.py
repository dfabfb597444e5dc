"""The command line of a recipe: read the configuration, show help or the plan, or train."""

import argparse
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from latentscale.config import Config, describe_keys, given_keys, load_config
from latentscale.distributed.deepspeed_settings import launcher_settings
from latentscale.distributed.exiting import exit_process
from latentscale.distributed.topology import Topology
from latentscale.errors import (
    CTRL_C_STATUS,
    INTERRUPTED_STATUS,
    USER_STATUS,
    Interruption,
    UserError,
    interruptible_imports,
    system_error,
)
from latentscale.launching.exit_reports import ExitReason, ExitReport, write_exit_report
from latentscale.methods.base import Method
from latentscale.package_data import data_folder
from latentscale.shell_command import shell_command
from latentscale.standard_streams import make_lasting
from latentscale.wording import counted

if TYPE_CHECKING:
    from latentscale.training.loop import Outcome

SECOND_INTERRUPT_SECONDS = 3.0
REPORT_SECONDS = 1.0
"""For a process with a user error to print it: a launcher stops a process as soon as another one has ended."""


class StopRequest:
    """Turns SIGTERM, SIGINT and SIGHUP into a flag for the training loop, from the loop's first call on.

    Before that call, while processes join, networks are built and the first step is compiled, nothing can be lost: a
    signal ends the process after REPORT_SECONDS, as a stopped one. A thread does this, since the main thread may be
    waiting for other processes outside of Python. A launcher forwards a Ctrl-C to processes that the terminal has
    already signalled, and a supervisor that insists follows with SIGKILL, so repeated signals change nothing. Only a
    Ctrl-C that comes seconds after the first one ends the process at once.
    """

    def __init__(self) -> None:
        self._training = False
        self._requested_at: float | None = None
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        # the interpreter writes to it when a signal arrives, whatever the main thread does
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in _stopping_signals():
            signal.signal(number, self._record)
        threading.Thread(target=self._end_before_training, args=(read_end,), name="signals", daemon=True).start()

    def __call__(self) -> bool:
        self._training = True
        return self._requested_at is not None

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self._requested_at is None:
            self._requested_at = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._requested_at > SECOND_INTERRUPT_SECONDS:
            raise KeyboardInterrupt

    def _end_before_training(self, read_end: int) -> None:
        while number := os.read(read_end, 1):
            if self._training:
                return
            if number[0] in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                time.sleep(REPORT_SECONDS)
                if not self._training:
                    exit_before_training()


def _stopping_signals() -> list[signal.Signals]:
    """A terminal that is closed sends SIGHUP, which ``nohup`` lets a program ignore."""
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if ignores_hangup else [signal.SIGHUP])]


@dataclass(frozen=True)
class Launch:
    """How a user starts a recipe.

    Attributes:
        command: with one process, as its help shows it.
        launched: what follows ``accelerate launch``.
        presets: folder of the preset files.
    """

    command: str
    launched: str
    presets: Path


def main(method: type[Method], recipe: Mapping[str, Any], script: str, arguments: Sequence[str] | None = None) -> None:
    """Run a recipe that is a script.

    Args:
        method: what it trains.
        recipe: its defaults, dotted keys to values.
        script: the recipe's own path. Its presets are in the folder ``presets`` beside it; without one, those that
            come with the package serve.
        arguments: the command line; ``sys.argv`` without one.

    Exits with status 2 and one line when the user can fix what is wrong.
    """
    path = Path(script)
    beside = path.parent / "presets"
    presets = beside if beside.is_dir() else data_folder("recipes") / "presets"
    shown = f"recipes/{path.name}"
    run(method, recipe, Launch(f"python {shown}", shown, presets), sys.argv[1:] if arguments is None else arguments)


def run(method: type[Method], recipe: Mapping[str, Any], launch: Launch, arguments: Sequence[str]) -> None:
    """Run a recipe.

    Args:
        method: the method that it trains.
        recipe: its defaults, dotted keys to values.
        launch: how the user started it.
        arguments: the rest of the command line.

    Exits with status 2 and one line after an error that the user must fix, and with status 130 at a Ctrl-C that does
    not wait for the loop to stop.
    """
    make_lasting(drops_all="--dry-run" not in arguments)
    try:
        options, overrides = _parse(method, recipe, launch, arguments)
        try:
            config = load(method, recipe, overrides, launch.presets)
        except UserError as error:
            raise error.on_every_process() from None
        if options.dry_run:
            print(dry_run(config, method))
            return
        _train(config, method)
        # do not wait for pictures that are still being drawn after a stop
        exit_process()
    except UserError as error:
        fail(error)
    except OSError as error:
        fail(system_error(error, "run the same command to continue"))
    except KeyboardInterrupt:
        exit_process(CTRL_C_STATUS)


def load(method: type[Method], recipe: Mapping[str, Any], overrides: Sequence[str], presets: Path) -> Config:
    """The configuration of a run; where ``data.path`` is given, what is left open follows from the data.

    Args:
        method: what is trained.
        recipe: its defaults, dotted keys to values.
        overrides: ``key=value`` arguments.
        presets: folder of the presets.

    Raises:
        UserError: a setting is wrong, or the data cannot be used.
    """
    if names_own_data(overrides):
        with interruptible_imports():
            from latentscale.own_data import own_data, print_notes
            from latentscale.progress_bar import progress_bar

        with progress_bar() as report:
            found = own_data(method, recipe, overrides, presets, report)
        print_notes(found)
        recipe, overrides = found.recipe, found.arguments
    return load_config(method.Settings, method.name, recipe, overrides, presets, launcher_settings())


def names_own_data(arguments: Sequence[str]) -> bool:
    """Whether a command line names data of the user's own."""
    given = given_keys(arguments)
    return bool(given.get("data.path")) and given.get("data.name", "shards") == "shards"


def _train(config: Config, method: type[Method]) -> None:
    stop = StopRequest()
    # imported only now, so that --help and early errors are fast
    from latentscale.training.loop import train

    outcome = train(config, method, stop)
    rank = Topology.from_environment().rank
    write_exit_report(ExitReport(rank, ExitReason.FINISHED if outcome.finished else ExitReason.STOPPED, outcome.step))
    if rank == 0:
        print_outcome(outcome, method)


def print_outcome(outcome: "Outcome", method: type[Method]) -> None:
    """Print how the run ended, the evaluation, and where the results are; called on rank 0."""
    with interruptible_imports():
        from latentscale.evaluation.explain import explain

    if not outcome.finished:
        print(
            f"stopped at step {outcome.step:,} with a checkpoint: run the same command to continue"
            f" (the model so far is in {outcome.folder / 'model'})"
        )
        return
    print(f"trained {method.name} for {outcome.step:,} steps: {outcome.folder}")
    if outcome.evaluation is not None:
        for line in explain(outcome.evaluation):
            print(f"  {line}")
        if not (method.inverts or method.classifies):
            print("  this method has no encoder, so it cannot reconstruct")
        held_out = "held out from training"
        seen = "training images: the dataset has no test split"
        print(f"  the real images are {held_out if outcome.evaluation['held_out'] else seen}")
    pictures = outcome.folder / "snapshots"
    # a method that neither generates nor inverts makes no pictures
    if pictures.is_dir() and any(pictures.iterdir()):
        print(f"pictures: {pictures}")
    print(f"model:    {outcome.folder / 'model'}")
    if method.inverts:
        print(f"next:     {shell_command('invert', outcome.folder)} IMAGE…")


def exit_before_training() -> NoReturn:
    """Exit successfully before the first step; an existing checkpoint stays as it was."""
    topology = Topology.from_environment()
    try:
        if topology.local_rank == 0:
            print("stopped before the first step: run the same command to continue", flush=True)
        write_exit_report(ExitReport(topology.rank, ExitReason.STOPPED))
    finally:
        os._exit(0)


def dry_run(config: Config, method: type[Method]) -> str:
    """The resolved configuration, the network sizes and the step plan, as text."""
    with interruptible_imports():
        from latentscale.training.checks import plan_dry_run
        from latentscale.training.memory import memory_in_words
        from latentscale.training.method_building import network_sizes
        from latentscale.training.plan import RunPlan

    plan = plan_dry_run(config, method)
    steps, shape = plan.steps, " × ".join(map(str, plan.shape))
    data, epochs = f"samples of {shape}, not available here", ""
    if isinstance(plan, RunPlan):
        count = plan.dataset.count
        data = f"{count:,} samples of {shape} in {counted(len(plan.dataset.shard_counts), 'shard')}"
        epochs = f", {config.training.steps * steps.batch / count:,.1f} epochs"
    allowed = ", ".join(f"{p}×{a}" for p, a in steps.allowed())
    lines = [
        config.to_yaml().rstrip(),
        "",
        f"method: {method.name} ({method.paper})",
        f"data: {data}",
        *(f"{name}: {count:,} parameters ({count / 1e6:.1f} M)" for name, count in network_sizes(plan).items()),
        *([f"images: decoded by {plan.decoder.describe()}"] if len(plan.shape) == 3 else []),
        f"step plan: global batch {steps.batch} images = {steps.streams} streams × {steps.stream_batch};"
        f" {steps.processes} processes × {steps.process_batch} images, accumulation {steps.accumulation}"
        f" × micro-batch {steps.microbatch}",
        f"the same steps with processes×accumulation: {allowed}",
        memory_in_words(plan),
        f"run: {config.training.steps:,} steps, {config.training.steps * steps.batch / 1000:,.0f} kimg{epochs}",
        *(f"note: {remark}" for remark in method.remarks(config.method, config.training.steps)),
    ]
    return "\n".join(lines)


def help_text(config: Config) -> str:
    """Every key with its type, default, unit and help line."""
    rows = describe_keys(config)
    name_width = max(len(row[0]) for row in rows)
    kind_width = max(len(row[1]) for row in rows)
    default_width = min(24, max(len(row[2]) for row in rows))
    return "\n".join(
        f"  {name:<{name_width}}  {kind:<{kind_width}}  {default:<{default_width}}  {text}"
        for name, kind, default, text in rows
    )


def fail(error: UserError) -> NoReturn:
    """Print one line on stderr and exit with status 2, or 75 if the same command may succeed.

    Only the first process of a node prints an error that all of them raise.
    """
    rank, local_rank = os.environ.get("RANK", "0"), os.environ.get("LOCAL_RANK", "0")
    temporary = isinstance(error, Interruption)
    # an invalid rank may be the error
    if not error.shared or not _has_first_process(local_rank):
        where = f"rank {rank}: " if re.fullmatch("[1-9][0-9]{0,8}", rank) and not error.shared else ""
        print(f"error: {where}{error}", file=sys.stderr, flush=True)
    if re.fullmatch("[0-9]{1,9}", rank):
        write_exit_report(
            ExitReport(int(rank), ExitReason.FAILED if temporary else ExitReason.USER_ERROR, message=str(error))
        )
    exit_process(INTERRUPTED_STATUS if temporary else USER_STATUS)


def _has_first_process(local_rank: str) -> bool:
    """Whether this process of a node is not the first: the environment says so, and that there are so many."""
    count = os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1"))
    return all(re.fullmatch("[0-9]{1,9}", text) for text in (local_rank, count)) and 0 < int(local_rank) < int(count)


def _parse(
    method: type[Method], recipe: Mapping[str, Any], launch: Launch, arguments: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog=f"accelerate launch {launch.launched}",
        usage=f"{launch.command} [--dry-run] [preset=NAME] [key=value …]   (or accelerate launch, torchrun)",
        description=f"Train {method.name}: {method.paper}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved configuration, network sizes and step plan, and exit",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, see below")
    if "-h" in arguments or "--help" in arguments:
        config = load_config(method.Settings, method.name, recipe, (), launch.presets)
        presets = sorted(path.stem for path in launch.presets.glob("*.yaml"))
        parser.epilog = (
            f"presets: {', '.join(presets) or 'none'}\n\nkeys (name, type, default, meaning):\n{help_text(config)}\n\n"
            "examples:\n"
            f"  {launch.command} --dry-run training.batch=64\n"
            f"  accelerate launch --multi_gpu --num_processes 2 {launch.launched} run.dir=runs/mine\n"
            "Running the same command again continues the run; run.restart=true moves it aside and starts over."
        )
    options, unknown = parser.parse_known_args(list(arguments))
    flags = [text for text in unknown if "=" not in text]
    if flags:
        raise UserError(
            f"unknown option {flags[0]}: settings are key=value, options are --dry-run and --help"
        ).on_every_process()
    return options, [*options.overrides, *unknown]
