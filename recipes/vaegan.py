"""Train VAEGAN: `accelerate launch recipes/vaegan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.vaegan import VAEGAN
    from latentscale.recipe import main

METHOD = VAEGAN
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/vaegan",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
