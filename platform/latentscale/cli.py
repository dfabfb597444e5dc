"""Where the command ``latentscale`` starts; its commands are in latentscale.commands."""

import sys

from latentscale.errors import CTRL_C_STATUS, interruptible_imports
from latentscale.standard_streams import make_lasting


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback and with exit status 130."""
    make_lasting()
    try:
        if sys.argv[1:2] == ["train"]:
            # A recipe handles signals, exit statuses and its own arguments: a library around it would change all three.
            with interruptible_imports():
                from latentscale.commands.train import train_recipe

            train_recipe(sys.argv[2:])
        else:
            with interruptible_imports():
                from latentscale.commands.app import main as run_commands

            run_commands()
    except KeyboardInterrupt:
        sys.exit(CTRL_C_STATUS)


if __name__ == "__main__":
    main()
