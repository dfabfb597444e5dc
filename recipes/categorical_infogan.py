"""Train categorical InfoGAN: `accelerate launch recipes/categorical_infogan.py [preset=NAME] [key=value …]`.

`--help` lists the keys.
"""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.categorical_infogan import CategoricalInfoGAN
    from latentscale.recipe import main

METHOD = CategoricalInfoGAN
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/categorical_infogan",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
