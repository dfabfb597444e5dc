"""Train MSEGAN: `accelerate launch recipes/msegan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.msegan import MSEGAN
    from latentscale.recipe import main

METHOD = MSEGAN
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/msegan",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
