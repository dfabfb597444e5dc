"""Train the autoencoder: `accelerate launch recipes/autoencoder.py [preset=NAME] [key=value …]`.

`--help` lists the keys.
"""

from latentscale.methods.autoencoder import Autoencoder
from latentscale.recipe import main

DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/autoencoder",
}

if __name__ == "__main__":
    main(Autoencoder, DEFAULTS, __file__)
