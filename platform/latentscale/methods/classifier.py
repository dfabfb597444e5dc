"""The classifier: D's trunk, relu of the latent head, dense logits (METHODS' OOD rivals, for energy scores and ReAct).

L = CE(c, Q(x)), averaged over labels.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from latentscale.latents.categories import most_likely, one_hot
from latentscale.latents.priors import Prior
from latentscale.latents.scale import at_least_float32
from latentscale.losses.classification import cross_entropy
from latentscale.methods.base import Draw, Method, MethodSettings
from latentscale.methods.conditional import label_values
from latentscale.methods.phase import Batch, Phase, Terms
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings, build_discriminator
from latentscale.networks.spec import ModelSpec
from latentscale.networks.trunk_classifier import TrunkClassifier


class ClassifierPhase(Phase):
    """Q's step: cross-entropy with the reals' labels."""

    name = "classifier"
    classifier: nn.Module

    def __init__(self, classifier: nn.Module, sizes: tuple[int, ...]) -> None:
        super().__init__(owned={"classifier": classifier}, borrowed={})
        self.sizes = sizes

    def forward(self, batch: Batch) -> Terms:
        assert batch.labels is not None
        logits: Tensor = at_least_float32(self.classifier(batch.real))
        category = one_hot(batch.labels, self.sizes).to(logits.dtype)
        loss = cross_entropy(logits, category, self.sizes)
        right = label_values(most_likely(logits.detach(), self.sizes), category, self.sizes).mean()
        return Terms(loss, {}, {}, {"classification": loss.detach(), "accuracy": right})


class Classifier(Method):
    """Labels from images; the keys ``method.adversarial``, ``r1`` and ``r2`` mean nothing to it."""

    name = "classifier"
    paper = "T §4.3 (rival; energy score of Liu et al. 2020, ReAct of Sun et al. 2021)"
    labelled = True
    generates = False
    classifies = True

    def __init__(
        self, settings: MethodSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.phases = [ClassifierPhase(self.networks["classifier"], spec.categories)]

    @classmethod
    def build_networks(
        cls, settings: MethodSettings, network: NetworkSettings, spec: ModelSpec
    ) -> dict[str, nn.Module]:
        trunk = build_discriminator(network, spec.latent_dim, spec.shape, cls.heads(spec))
        return {"classifier": TrunkClassifier(trunk, spec.latent_dim, spec.category_dim)}

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=0, latent=spec.latent_dim)

    def draws(self) -> dict[str, Draw]:
        return {}

    def classify(self, sample: Tensor) -> Tensor:
        logits: Tensor = self.networks["classifier"](sample)
        return logits
