"""Train InvGAN: `accelerate launch recipes/invgan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.invgan import InvGAN
    from latentscale.recipe import main

METHOD = InvGAN
DEFAULTS = {
    "preset": "digits8",
    # MMD² needs several samples per stream
    "distributed.streams": 4,
    "run.dir": "runs/invgan",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
