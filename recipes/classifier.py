"""Train the classifier: `accelerate launch recipes/classifier.py [preset=NAME] [key=value …]`.

`--help` lists the keys.
"""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.classifier import Classifier
    from latentscale.recipe import main

METHOD = Classifier
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/classifier",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
