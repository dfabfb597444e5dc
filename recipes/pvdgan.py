"""Train PVDGAN: `accelerate launch recipes/pvdgan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.pvdgan import PVDGAN
    from latentscale.recipe import main

METHOD = PVDGAN
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/pvdgan",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
