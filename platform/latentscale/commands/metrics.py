"""``latentscale metrics``."""

import sys

from latentscale.errors import interruptible_imports


def metrics() -> None:
    """List the metrics: what each tells, what it needs, its unit and which values are good.

    A run records every metric that applies to its method and data: as [bold]evaluation/FIGURE[/bold] in metrics.jsonl
    every [bold]evaluation.every_steps[/bold] steps, and in words at its end.
    """
    with interruptible_imports():
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Column, Table

        from latentscale.evaluation.registry import METRICS

    columns = (Column("metric and figures", no_wrap=True), Column("unit", no_wrap=True), Column("better", no_wrap=True))
    table = Table(*columns, Column("needs", no_wrap=True), "what it tells, and its source", show_lines=True)
    for metric in METRICS.values():
        table.add_row(
            "\n".join([f"[bold]{metric.name}[/bold]", *(f"  {key}" for key in metric.keys)]),
            "\n".join(["", *(figure.unit or "none" for figure in metric.figures)]),
            "\n".join(["", *(figure.direction.name.lower() for figure in metric.figures)]),
            "\n".join(metric.sorted_needs) or "nothing",
            f"{escape(metric.description)}\n[dim]{escape(metric.source)}[/dim]",
        )
    # a pipe has no width of its own
    Console(width=None if sys.stdout.isatty() else 140).print(table)
