"""Where the command ``latentscale`` starts; its commands are in latentscale.commands."""

import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["train"]:
        # A recipe handles signals, exit statuses and its own arguments: a library around it would change all three.
        from latentscale.commands.train import train_recipe

        train_recipe(sys.argv[2:])
    else:
        from latentscale.commands.app import main as run_commands

        run_commands()


if __name__ == "__main__":
    main()
