"""Train VAEGAN: `accelerate launch recipes/vaegan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.methods.vaegan import VAEGAN
from latentscale.recipe import main

DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/vaegan",
}

if __name__ == "__main__":
    main(VAEGAN, DEFAULTS, __file__)
