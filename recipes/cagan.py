"""Train CAGAN: `accelerate launch recipes/cagan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.methods.cagan import CAGAN
from latentscale.recipe import main

DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/cagan",
}

if __name__ == "__main__":
    main(CAGAN, DEFAULTS, __file__)
