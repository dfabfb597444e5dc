"""Train the autoencoder: `accelerate launch recipes/autoencoder.py [preset=NAME] [key=value …]`.

`--help` lists the keys.
"""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.autoencoder import Autoencoder
    from latentscale.recipe import main

METHOD = Autoencoder
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/autoencoder",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
