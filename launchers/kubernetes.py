"""The entry point of a pod: `python launchers/kubernetes.py [options] recipes/pvdgan.py [key=value …]`."""

from latentscale.launching.kubernetes import run
from latentscale.launching.node import exit_with

if __name__ == "__main__":
    exit_with(run)
