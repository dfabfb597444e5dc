"""Train ACGAN: `accelerate launch recipes/acgan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.acgan import ACGAN
    from latentscale.recipe import main

METHOD = ACGAN
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/acgan",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
