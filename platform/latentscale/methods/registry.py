"""The methods by name."""

from latentscale.methods.base import Method
from latentscale.methods.dlsgan import DLSGAN
from latentscale.methods.infogan import InfoGAN
from latentscale.methods.msegan import MSEGAN
from latentscale.methods.pvdgan import PVDGAN
from latentscale.methods.vanilla import Vanilla

METHODS: dict[str, type[Method]] = {method.name: method for method in (Vanilla, MSEGAN, InfoGAN, DLSGAN, PVDGAN)}
