"""The classifier: D's trunk, relu of the latent head, dense logits; for energy scores and ReAct.

L = CE(c, Q(x)), averaged over labels (Cho 2025, §4.3).
"""

from collections.abc import Mapping

from torch import Tensor, nn

from latentscale.latents.categories import most_likely
from latentscale.latents.priors import Prior
from latentscale.latents.scale import at_least_float32
from latentscale.losses.classification import cross_entropy
from latentscale.methods.base import Draw, Method, MethodSettings, refuse_paired
from latentscale.methods.categorical import label_category
from latentscale.methods.passes import label_values
from latentscale.methods.phase import Batch, Phase, Terms, weighted_terms
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings, build_discriminator
from latentscale.networks.spec import ModelSpec
from latentscale.networks.trunk_classifier import TrunkClassifier


class ClassifierPhase(Phase):
    """Q's step: cross-entropy with the reals' labels."""

    name = "classifier"
    classifier: nn.Module

    def forward(self, batch: Batch) -> Terms:
        logits: Tensor = at_least_float32(self.classifier(batch.real))
        category = label_category(batch, self.sizes).to(logits.dtype)
        loss = cross_entropy(logits, category, self.sizes)
        accuracy = label_values(most_likely(logits.detach(), self.sizes), category, self.sizes).mean()
        return weighted_terms({"classification": (1.0, loss)}, measured={"accuracy": accuracy})


class Classifier(Method):
    """Classifier of labels, which ignores ``method.adversarial``, ``r1`` and ``r2``."""

    name = "classifier"
    paper = "Cho 2025, §4.3 (baseline; energy score of Liu et al. 2020, ReAct of Sun et al. 2021)"
    adversarial = False
    labelled = True
    generates = False
    classifies = True

    def __init__(
        self, settings: MethodSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.phases = [ClassifierPhase(owned=networks, borrowed={}, sizes=spec.categories)]

    @classmethod
    def build_networks(
        cls, settings: MethodSettings, network: NetworkSettings, spec: ModelSpec
    ) -> dict[str, nn.Module]:
        trunk = build_discriminator(network, spec.latent_dim, spec.shape, cls.heads(spec))
        return {"classifier": TrunkClassifier(trunk, spec.latent_dim, spec.category_dim)}

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=0, latent=spec.latent_dim)

    @classmethod
    def validate(cls, settings: MethodSettings, law: str, stream_batch: int) -> None:
        refuse_paired(settings, cls.name)

    def draws(self) -> dict[str, Draw]:
        return {}

    def classify(self, sample: Tensor) -> Tensor:
        logits: Tensor = self.networks["classifier"](sample)
        return logits
