"""The methods by name."""

from latentscale.methods.acgan import ACGAN
from latentscale.methods.aedlsgan import AEDLSGAN
from latentscale.methods.autoencoder import Autoencoder
from latentscale.methods.base import Method
from latentscale.methods.cagan import CAGAN
from latentscale.methods.categorical_infogan import CategoricalInfoGAN
from latentscale.methods.cgpgan import CGPGAN
from latentscale.methods.classifier import Classifier
from latentscale.methods.dlsgan import DLSGAN
from latentscale.methods.elastic_infogan import ElasticInfoGAN
from latentscale.methods.infogan import InfoGAN
from latentscale.methods.invgan import InvGAN
from latentscale.methods.msegan import MSEGAN
from latentscale.methods.posthoc_encoder import PosthocEncoder
from latentscale.methods.pvdgan import PVDGAN
from latentscale.methods.vaegan import VAEGAN
from latentscale.methods.vanilla import Vanilla

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Vanilla,
        ACGAN,
        CAGAN,
        MSEGAN,
        InfoGAN,
        DLSGAN,
        PVDGAN,
        AEDLSGAN,
        CategoricalInfoGAN,
        ElasticInfoGAN,
        CGPGAN,
        PosthocEncoder,
        VAEGAN,
        InvGAN,
        Autoencoder,
        Classifier,
    )
}
