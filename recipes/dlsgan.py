"""Train DLSGAN: `accelerate launch recipes/dlsgan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.dlsgan import DLSGAN
    from latentscale.recipe import main

METHOD = DLSGAN
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/dlsgan",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
