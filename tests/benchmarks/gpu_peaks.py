"""Peak FLOP/s of GPUs for dense matrix products, by the driver's name for them, from the vendors."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Peak:
    """The figures of a data sheet, without sparsity.

    Attributes:
        bf16, tf32, fp32: FLOP/s.
        source: where they stand; figures printed with sparsity there are halved here.
    """

    bf16: float
    tf32: float
    fp32: float
    source: str


# the first match; a MIG instance has no figures
PEAKS: tuple[tuple[str, Peak | None], ...] = (
    (r"MIG", None),
    (r"H200 NVL", Peak(835.5e12, 417.5e12, 60e12, "NVIDIA H200 data sheet, NVL")),
    (r"GH200|H200", Peak(989.5e12, 494.5e12, 67e12, "NVIDIA H200 and GH200 data sheets")),
    (r"H100 PCIe", Peak(756e12, 378e12, 51e12, "NVIDIA H100 data sheet, PCIe")),
    (r"H100 NVL", Peak(835.5e12, 417.5e12, 60e12, "NVIDIA H100 data sheet, NVL")),
    (r"H100", Peak(989.5e12, 494.5e12, 67e12, "NVIDIA H100 data sheet, SXM")),
    (r"A100", Peak(312e12, 156e12, 19.5e12, "NVIDIA A100 data sheet")),
    (r"A10\b", Peak(125e12, 62.5e12, 31.2e12, "NVIDIA A10 data sheet")),
    (r"L40S", Peak(362.05e12, 183e12, 91.6e12, "NVIDIA L40S data sheet")),
    (r"L4\b", Peak(121e12, 60e12, 30.3e12, "NVIDIA L4 data sheet")),
    (r"RTX 4090", Peak(165.2e12, 82.6e12, 82.6e12, "NVIDIA Ada GPU architecture, appendix A, FP32 accumulate")),
)


def peak_of(name: str) -> Peak | None:
    """The card's figures; None if they are unknown."""
    return next((peak for pattern, peak in PEAKS if re.search(pattern, name)), None)


def attainable(peak: Peak, precision: str, tensor_cores: bool) -> float:
    """Peak FLOP/s for a step in this precision.

    Args:
        precision: of ``training.precision``.
        tensor_cores: whether fp32 convolutions run as TF32, torch's default.
    """
    if precision == "bf16":
        return peak.bf16
    return peak.tf32 if tensor_cores else peak.fp32
