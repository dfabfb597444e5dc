"""Train Vanilla: `accelerate launch recipes/vanilla.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.vanilla import Vanilla
    from latentscale.recipe import main

METHOD = Vanilla
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/vanilla",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
