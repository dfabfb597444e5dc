"""``python -m latentscale``: the same as the command ``latentscale``, for launchers that start modules."""

from latentscale.cli import main

if __name__ == "__main__":
    main()
