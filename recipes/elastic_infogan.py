"""Train Elastic InfoGAN: `accelerate launch recipes/elastic_infogan.py [preset=NAME] [key=value …]`.

`--help` lists the keys.
"""

from latentscale.errors import interruptible_imports

with interruptible_imports():
    from latentscale.methods.elastic_infogan import ElasticInfoGAN
    from latentscale.recipe import main

METHOD = ElasticInfoGAN
DEFAULTS = {
    "preset": "digits8",
    "run.dir": "runs/elastic_infogan",
}

if __name__ == "__main__":
    main(METHOD, DEFAULTS, __file__)
