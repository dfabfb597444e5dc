"""Train AEDLSGAN: `accelerate launch recipes/aedlsgan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.aedlsgan import AEDLSGAN
    from latentscale.recipe import main

METHOD = AEDLSGAN
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/aedlsgan",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
