"""A run on a cluster of N nodes on this Linux machine, each in its own network namespace.

    sudo python launchers/localcluster.py --nodes 2 --processes 2 recipes/pvdgan.py run.dir=runs/two key=value …

The nodes have the host names node-0 … and the addresses 10.77.0.1 …, and are connected by a bridge that nothing else
can reach. Needs root, iproute2 and util-linux. Ctrl-C or SIGTERM stops the run with a checkpoint; a second one ends
everything at once. Nothing is left behind, however it ends.
"""

import argparse
import signal
import sys
import time
from types import FrameType

from latentscale.launching.localcluster import Command, LocalCluster
from latentscale.launching.node import exit_with
from latentscale.launching.node_options import LauncherParser, add_command, given_command

POLL_SECONDS = 0.1


class Signals:
    """Counts SIGTERM and SIGINT."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._count)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = LauncherParser(
        usage="python launchers/localcluster.py [options] recipes/pvdgan.py [key=value …]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--nodes", type=int, default=2, metavar="N", help="number of nodes (default 2)")
    parser.add_argument("--processes", type=int, default=1, metavar="P", help="processes on each node (default 1)")
    parser.add_argument("--gpu", action="store_true", help="use GPUs; every node sees all of them")
    parser.add_argument("--max-restarts", type=int, default=0, metavar="R", help="restarts after a failure (default 0)")
    parser.add_argument("--grace-seconds", type=float, default=120, metavar="S", help="time to stop (default 120)")
    parser.add_argument(
        "--bits-per-second", type=float, metavar="B", help="bandwidth of each node's link, in both directions"
    )
    parser.add_argument("--delay-seconds", type=float, default=0.0, metavar="S", help="delay of each link; needs netem")
    add_command(parser)
    return parser.parse_args()


def run() -> int:
    """Build the cluster, run, and return the worst exit status of the nodes."""
    options = parse()
    signals = Signals()
    with LocalCluster(options.nodes) as cluster:
        if options.bits_per_second or options.delay_seconds:
            for node in cluster.nodes:
                node.slow(options.bits_per_second, options.delay_seconds)
        launchers = cluster.launch(
            given_command(vars(options)),
            processes_per_node=options.processes,
            cpu=not options.gpu,
            max_restarts=options.max_restarts,
            grace_seconds=options.grace_seconds,
            on_line=lambda node, line: print(f"[node-{node}] {line}", end="", flush=True),
        )
        return watch(launchers, signals)


def watch(launchers: list[Command], signals: Signals) -> int:
    """Wait for the launchers; forward a first signal, and give up at a second one."""
    forwarded = False
    while any(launcher.poll() is None for launcher in launchers):
        if signals.count and not forwarded:
            forwarded = True
            for launcher in launchers:
                launcher.signal(signal.SIGTERM)
        if signals.count > 1:
            print("error: ended before the run had stopped", file=sys.stderr)
            return 1
        time.sleep(POLL_SECONDS)
    statuses = {launcher.wait(1) for launcher in launchers}
    return 2 if 2 in statuses else 1 if statuses - {0} else 0


if __name__ == "__main__":
    exit_with(run)
