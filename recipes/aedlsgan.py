"""Train AEDLSGAN: `accelerate launch recipes/aedlsgan.py [preset=NAME] [key=value …]`; `--help` lists the keys."""

from latentscale.methods.aedlsgan import AEDLSGAN
from latentscale.recipe import main

DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/aedlsgan",
}

if __name__ == "__main__":
    main(AEDLSGAN, DEFAULTS, __file__)
