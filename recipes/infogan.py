"""Train InfoGAN: `accelerate launch recipes/infogan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.infogan import InfoGAN
    from latentscale.recipe import main

METHOD = InfoGAN
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/infogan",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
