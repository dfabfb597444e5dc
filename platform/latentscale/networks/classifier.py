"""A classifier with the discriminator's trunk, the rival of latent scores in finding what is out of distribution."""

from torch import Tensor, nn

from latentscale.networks.layers import EqualizedLinear
from latentscale.networks.outputs import Discrimination


class TrunkClassifier(nn.Module):
    """``[b, *shape]`` to logits: D's trunk, its latent head with relu, one dense layer.

    Args:
        trunk: a discriminator with a latent head alone.
        latent_dim: width of that head.
        classes: Σ d_c, all labels' logits side by side.
    """

    def __init__(self, trunk: nn.Module, latent_dim: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.to_logits = EqualizedLinear(latent_dim, classes)

    def activations(self, x: Tensor) -> Tensor:
        """``[b, latent_dim]`` what the last layer sees, ≥ 0; ReAct clips these."""
        seen: Discrimination = self.trunk(x)
        assert seen.latent is not None
        return seen.latent.relu()

    def logits(self, activations: Tensor) -> Tensor:
        """``[b, latent_dim]``, clipped or not, to ``[b, Σ d_c]``."""
        values: Tensor = self.to_logits(activations)
        return values

    def forward(self, x: Tensor) -> Tensor:
        """``[b, Σ d_c]``."""
        return self.logits(self.activations(x))
