"""Train CAGAN: `accelerate launch recipes/cagan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.cagan import CAGAN
    from latentscale.recipe import main

METHOD = CAGAN
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/cagan",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
