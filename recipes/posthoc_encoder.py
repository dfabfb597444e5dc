"""Train the post-hoc encoder: `accelerate launch recipes/posthoc_encoder.py [preset=NAME] [key=value …]`.

`--help` lists the keys.
"""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.posthoc_encoder import PosthocEncoder
    from latentscale.recipe import main

METHOD = PosthocEncoder
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/posthoc_encoder",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
