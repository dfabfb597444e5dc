"""``latentscale methods``."""

import sys

from latentscale.errors import interruptible_imports


def methods() -> None:
    """List the methods with their paper, requirements and capabilities."""
    with interruptible_imports():
        from rich.console import Console
        from rich.table import Column, Table

        from latentscale.losses.adversarial import ADVERSARIAL
        from latentscale.methods.description import describe
        from latentscale.methods.registry import METHODS

    name_column = Column("method", no_wrap=True)
    table = Table(name_column, "needs", "gives", "source", title="accelerate launch recipes/METHOD.py", show_lines=True)
    for method in METHODS.values():
        name, paper, needs, gives = describe(method)
        table.add_row(name, "\n".join(needs) or "images alone", "\n".join(gives), paper)
    without = ", ".join(name for name, method in METHODS.items() if not method.adversarial)
    table.caption = f"method.adversarial, except for {without}: {', '.join(ADVERSARIAL)}"
    # a pipe has no width
    Console(width=None if sys.stdout.isatty() else 140).print(table)
