"""A classifier with the discriminator's trunk, a baseline for out-of-distribution detection by latent scores."""

from torch import Tensor, nn

from latentscale.networks.discriminator_output import DiscriminatorOutput
from latentscale.networks.layers import EqualizedLinear


class TrunkClassifier(nn.Module):
    """``[b, *shape]`` to logits: D's trunk, its latent head with ReLU, a dense layer.

    Args:
        trunk: a discriminator whose only head is the latent one.
        latent_dim: width of that head.
        classes: Σ d_c, the width of all labels' logits, concatenated.
    """

    def __init__(self, trunk: nn.Module, latent_dim: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.to_logits = EqualizedLinear(latent_dim, classes)

    def activations(self, x: Tensor) -> Tensor:
        """Input of the last layer ``[b, latent_dim]``, ≥ 0; ReAct (Sun et al. 2021) clips it."""
        output: DiscriminatorOutput = self.trunk(x)
        assert output.latent is not None
        return output.latent.relu()

    def logits(self, activations: Tensor) -> Tensor:
        """Activations ``[b, latent_dim]``, clipped or not, to logits ``[b, Σ d_c]``."""
        values: Tensor = self.to_logits(activations)
        return values

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[b, Σ d_c]``."""
        return self.logits(self.activations(x))
