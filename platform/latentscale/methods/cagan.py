"""CAGAN, conditional activation GAN: a GAN for every category, which share all hidden layers (T eq. 25-30).

D has d_l·d_c adversarial outputs, those of all labels side by side; the value a·c of a sample is, for every label,
the output of the sample's own category. The adversarial loss is applied per label and averaged over labels. There is
no classification loss. A binary attribute is a label of two categories.
"""

from latentscale.methods import conditional
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.spec import ModelSpec


class DiscriminatorPhase(conditional.DiscriminatorPhase):
    """L_d = A_d(D(x)·c_r, D(G(z, c_f))·c_f) + λ_r R (T eq. 29)."""


class GeneratorPhase(conditional.GeneratorPhase):
    """L_g = A_g(D(G(z, c_f))·c_f) (T eq. 30)."""


class CAGAN(conditional.LabelledMethod):
    """Conditional activation GAN."""

    name = "cagan"
    paper = "T §3.1, eq. 25-30; mixed batches: T §3.1.1"
    discriminator_phase = DiscriminatorPhase
    generator_phase = GeneratorPhase

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=spec.category_dim)
