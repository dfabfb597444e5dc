"""The command line of a recipe: read the configuration, show help or the plan, or train."""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from latentscale.config import Config, describe_keys, load_config
from latentscale.distributed.deepspeed_settings import launcher_settings
from latentscale.distributed.exiting import exit_process
from latentscale.distributed.topology import Topology
from latentscale.errors import INTERRUPTED_STATUS, USER_STATUS, Interruption, UserError
from latentscale.launching.exit_reports import ExitReason, ExitReport, write_exit_report
from latentscale.methods.base import Method
from latentscale.package_data import data_folder
from latentscale.wording import counted

if TYPE_CHECKING:
    from latentscale.training.loop import Outcome

INSIST_SECONDS = 3.0
SAY_SECONDS = 1.0
"""For a process that is refused to say so: a launcher tells it to stop as soon as another one has ended."""


class StopRequest:
    """Turns SIGTERM and SIGINT into a flag that the loop reads, from its first question on.

    Before it, while processes meet, networks are built and the first step is compiled, there is nothing to lose: a
    signal ends the process after SAY_SECONDS, as one that has stopped. That is a thread's to do, for the main one may
    be waiting for others where Python does not reach it. A launcher passes a Ctrl-C on to processes that the terminal
    has told already, and a supervisor that means it follows with SIGKILL, so repeated signals change nothing; only a
    Ctrl-C that comes seconds after the first one ends the process at once.
    """

    def __init__(self) -> None:
        self._trains = False
        self._asked_at: float | None = None
        told, tell = os.pipe()
        os.set_blocking(tell, False)
        # written to as a signal arrives, whatever the main thread does
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)
        threading.Thread(target=self._end_before_training, args=(told,), name="signals", daemon=True).start()

    def __call__(self) -> bool:
        self._trains = True
        return self._asked_at is not None

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._asked_at > INSIST_SECONDS:
            raise KeyboardInterrupt

    def _end_before_training(self, told: int) -> None:
        while number := os.read(told, 1):
            if self._trains:
                return
            if number[0] in (signal.SIGTERM, signal.SIGINT):
                time.sleep(SAY_SECONDS)
                if not self._trains:
                    exit_before_training()


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
        method: what it trains.
        recipe: its defaults, dotted keys to values.
        launch: how the user has started it.
        arguments: the command line after that.

    Exits with status 2 and one line when the user can fix what is wrong.
    """
    try:
        options, overrides = _parse(method, recipe, launch, arguments)
        try:
            config = load_config(method.Settings, method.name, recipe, overrides, launch.presets, launcher_settings())
        except UserError as error:
            raise error.on_every_process() from None
        if options.dry_run:
            print(dry_run(config, method))
            return
        _train(config, method)
        # pictures that are still being drawn beside a stopped training are not waited for
        exit_process()
    except UserError as error:
        fail(error)
    except OSError as error:
        if error.filename is None:
            raise
        fail(UserError(f"{error.filename}: {error.strerror}: mend that, then run the same command to continue"))


def _train(config: Config, method: type[Method]) -> None:
    stop = StopRequest()
    # the training stack is imported only now: --help and refusals are quick
    from latentscale.training.loop import train

    outcome = train(config, method, stop)
    rank = Topology.from_environment().rank
    write_exit_report(ExitReport(rank, ExitReason.FINISHED if outcome.finished else ExitReason.STOPPED, outcome.step))
    if rank == 0:
        print_outcome(outcome, method)


def print_outcome(outcome: "Outcome", method: type[Method]) -> None:
    """Print how the run ended, what was measured, and where everything is; called on rank 0."""
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
        held_out = "held out: training never saw them"
        seen = "training images: the data have no test split"
        print(f"  real images are {held_out if outcome.evaluation['held_out'] else seen}")
    pictures = outcome.folder / "snapshots"
    # a method that neither generates nor inverts draws none
    if pictures.is_dir() and any(pictures.iterdir()):
        print(f"pictures: {pictures}")
    print(f"model:    {outcome.folder / 'model'}")
    if method.inverts:
        print(f"next:     latentscale invert {outcome.folder} IMAGE…")


def exit_before_training() -> NoReturn:
    """End well before the first step: a checkpoint that the run continues from, if there is one, stands as it was."""
    topology = Topology.from_environment()
    try:
        if topology.local_rank == 0:
            print("stopped before the first step: run the same command to continue", flush=True)
        write_exit_report(ExitReport(topology.rank, ExitReason.STOPPED))
    finally:
        os._exit(0)


def dry_run(config: Config, method: type[Method]) -> str:
    """The resolved configuration, the network sizes and the step plan, in words."""
    from latentscale.training.prepare import prepare

    preparation = prepare(config, method, dry=True)
    plan, data = preparation.plan, preparation.dataset
    sizes = preparation.sizes()
    shape = " × ".join(map(str, preparation.shape))
    held = f"{shape}, not at hand"
    if data:
        held = f"{data.count:,} samples of {shape} in {counted(len(data.shard_counts), 'shard')}"
    allowed = ", ".join(f"{p}×{a}" for p, a in plan.allowed())
    lines = [
        config.to_yaml().rstrip(),
        "",
        f"method: {method.name} ({method.paper})",
        f"data: {held}",
        *(f"{name}: {count:,} parameters ({count / 1e6:.1f} M)" for name, count in sizes.items()),
        *([f"images: decoded by {preparation.decoder.describe()}"] if len(preparation.shape) == 3 else []),
        f"step plan: global batch {plan.batch} images = {plan.streams} streams × {plan.stream_batch};"
        f" {plan.processes} processes × {plan.process_batch} images, accumulation {plan.accumulation}"
        f" × micro-batch {plan.microbatch}",
        f"same steps with processes×accumulation: {allowed}",
        f"run: {config.training.steps:,} steps, {config.training.steps * plan.batch / 1000:,.0f} kimg"
        + (f", {config.training.steps * plan.batch / data.count:,.1f} epochs" if data else ""),
        *(f"note: {remark}" for remark in method.remarks(config.method, config.training.steps)),
    ]
    return "\n".join(lines)


def help_text(config: Config) -> str:
    """Every key with its type, default, unit and one line."""
    rows = describe_keys(config)
    name_width = max(len(row[0]) for row in rows)
    kind_width = max(len(row[1]) for row in rows)
    default_width = min(24, max(len(row[2]) for row in rows))
    return "\n".join(
        f"  {name:<{name_width}}  {kind:<{kind_width}}  {default:<{default_width}}  {text}"
        for name, kind, default, text in rows
    )


def fail(error: UserError) -> NoReturn:
    """One line on stderr and exit status 2, or 75 where the same command may succeed; then the process ends.

    What every process of a node raises is said by its first.
    """
    rank, local_rank = os.environ.get("RANK", "0"), os.environ.get("LOCAL_RANK", "0")
    passing = isinstance(error, Interruption)
    if local_rank == "0" or not error.shared:
        where = "" if rank == "0" or error.shared else f"rank {rank}: "
        print(f"error: {where}{error}", file=sys.stderr, flush=True)
    if rank.isdigit():
        write_exit_report(
            ExitReport(int(rank), ExitReason.FAILED if passing else ExitReason.USER_ERROR, message=str(error))
        )
    exit_process(INTERRUPTED_STATUS if passing else USER_STATUS)


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
            f"there is no option {flags[0]}: settings are key=value, options are --dry-run and --help"
        ).on_every_process()
    return options, [*options.overrides, *unknown]
