"""Train Vanilla: `accelerate launch recipes/vanilla.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.methods.vanilla import Vanilla
from latentscale.recipe import main

DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/vanilla",
}

if __name__ == "__main__":
    main(Vanilla, DEFAULTS, __file__)
