"""Train CGPGAN: `accelerate launch recipes/cgpgan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.cgpgan import CGPGAN
    from latentscale.recipe import main

METHOD = CGPGAN
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/cgpgan",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
