"""How well a model inverts: latent error on its own images, reconstruction of real ones, and what they need.

Protocol: averaged weights in eval mode; PSNR and SSIM over a range of 2, with reconstructions clipped to
[-1, 1]; SSIM with the 11×11 Gaussian window of σ 1.5, where it fits whole; PSNR from the error pooled over all
images, the mean of the images' own PSNRs beside it.
"""

import math

import torch
from torch import Tensor

from latentscale.errors import UserError
from latentscale.inversion.trained_model import TrainedModel
from latentscale.latents.draws import Purpose
from latentscale.latents.scale import LatentScale

PSNR_CEILING_DB = 100.0
"""PSNR of identical images is infinite, which no average survives: values are cut here."""

SSIM_WINDOW_PIXELS = 11

Report = dict[str, float | int | None]


def psnr_db(squared_error: Tensor) -> Tensor:
    """Mean squared errors of images in [-1, 1] to PSNR in dB (range 2), at most PSNR_CEILING_DB."""
    floor = 4.0 * 10.0 ** (-PSNR_CEILING_DB / 10.0)
    return 10.0 * torch.log10(4.0 / squared_error.double().clamp_min(floor))


def squared_error_per_image(images: Tensor, others: Tensor) -> Tensor:
    """``[n]`` float64 mean squared errors between two ``[n, C, H, W]``."""
    return (images.double() - others.double()).square().flatten(1).mean(dim=1)


def ssim_per_image(images: Tensor, others: Tensor) -> Tensor:
    """``[n]`` float64 structural similarities (Wang et al. 2004) of two ``[n, C, H, W]`` in [-1, 1].

    Averaged over the places where the window fits whole, and over channels; H and W >= SSIM_WINDOW_PIXELS.
    """
    # imported here: it costs a second, and images below the window never need it
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, everywhere = structural_similarity_index_measure(
        images.float(), others.float(), sigma=1.5, data_range=(-1.0, 1.0), reduction="none", return_full_image=True
    )
    # torchmetrics averages over windows of reflected border pixels too, which published figures do not.
    border = SSIM_WINDOW_PIXELS // 2
    return everywhere[..., border:-border, border:-border].double().mean(dim=(1, 2, 3))


@torch.no_grad()
def reconstruction_report(
    model: TrainedModel, reals: Tensor, seed: int, fresh_draws: int = 1000, batch_images: int = 64
) -> Report:
    """Measure a model's inversion.

    Args:
        model: with its averaged weights.
        reals: the reference images ``[n, C, H, W]``, n >= 2, float in [-1, 1] or uint8 in [0, 255]; best
            those that training never saw.
        seed: of the fresh latents.
        fresh_draws: how many latents the latent error is measured on.
        batch_images: images that go through a network at once.

    Returns:
        A number, or None where it does not apply (no encoder, no variance, SSIM of images below 11 pixels):

        - ``real_images``, ``fresh_draws``, ``latent_dimensions``: counts.
        - ``latent_error_mean``, ``latent_error_median``: over fresh draws, of avg(((z − E(G(z∘s)))∘s)²)
          (T eq. 31; with s = 1 T eq. 15); G's images go into E as in training, unclipped.
        - ``latent_variance``: of the same scaled latents over the draws, averaged over elements: the error of the best
          constant answer.
        - ``psnr_db``, ``psnr_per_image_db``: of G(E(x)∘s) against x, pooled and averaged over images.
        - ``mean_image_psnr_db``, ``gain_db``: what answering every image with the reference set's mean image
          would score (pooled), and how far ``psnr_db`` is above it.
        - ``ssim``: structural similarity of the same reconstructions, averaged over images.
        - ``effective_dimensions``: (Σv)²/Σv², the latent dimensions in use.
        - ``latent_entropy_nats``: h(Z) + Σ log s_i (T §3.2).

    Raises:
        UserError: reference samples that do not fit the model.
    """
    reals = _checked(model, reals)
    scale = model.scale.cpu().double()
    report: Report = {
        "real_images": len(reals),
        "fresh_draws": fresh_draws if model.can_invert and model.can_generate else 0,
        "latent_dimensions": model.latent_dim,
        "latent_error_mean": None,
        "latent_error_median": None,
        "latent_variance": None,
        "psnr_db": None,
        "psnr_per_image_db": None,
        "mean_image_psnr_db": _mean_image_psnr_db(reals, batch_images) if model.makes_images else None,
        "gain_db": None,
        "ssim": None,
        "effective_dimensions": None,
        "latent_entropy_nats": None,
    }
    if model.can_invert and model.can_generate:
        errors, latents = [], []
        for drawn in model.draw_latents(fresh_draws, seed, Purpose.EVALUATION).split(batch_images):
            latent = model.map_latent(drawn)
            predicted = model.encode(model.decode(latent)).cpu().double()
            latents.append(latent.cpu().double() * scale)
            errors.append((latents[-1] - predicted * scale).square().mean(dim=1))
        latent_errors = torch.cat(errors)
        report["latent_error_mean"] = latent_errors.mean().item()
        report["latent_error_median"] = latent_errors.quantile(0.5).item()
        report["latent_variance"] = torch.cat(latents).var(dim=0, correction=0).mean().item()
    if model.can_invert and model.makes_images:
        report |= _real_reconstruction(model, reals, batch_images)
        pooled, baseline = report["psnr_db"], report["mean_image_psnr_db"]
        assert pooled is not None
        assert baseline is not None
        report["gain_db"] = pooled - baseline
    if model.variance is not None:
        latent_scale = LatentScale(model.latent_dim).double()
        latent_scale.variance.copy_(model.variance.cpu())
        report["effective_dimensions"] = latent_scale.effective_dimensions().item()
        report["latent_entropy_nats"] = (
            latent_scale.entropy(model.prior).item()
            if model.uses_dynamic_scale
            else model.prior.entropy(model.latent_dim)
        )
    return report


def _checked(model: TrainedModel, reals: Tensor) -> Tensor:
    if tuple(reals.shape[1:]) != model.shape or len(reals) < 2:
        raise UserError(
            f"reference samples have shape {list(reals.shape)}, the model takes [n, "
            f"{', '.join(map(str, model.shape))}] with n >= 2"
        )
    return reals


def _floats(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1.0 if images.dtype == torch.uint8 else images


def _mean_image_psnr_db(reals: Tensor, batch_images: int) -> float:
    total = torch.zeros(reals.shape[1:], dtype=torch.float64)
    for batch in reals.split(batch_images):
        total += _floats(batch).cpu().double().sum(dim=0)
    mean = total / len(reals)
    pooled = 0.0
    for batch in reals.split(batch_images):
        pooled += squared_error_per_image(_floats(batch).cpu(), mean.expand_as(batch)).sum().item()
    return psnr_db(torch.tensor(pooled / len(reals), dtype=torch.float64)).item()


def _real_reconstruction(model: TrainedModel, reals: Tensor, batch_images: int) -> Report:
    errors, similarities = [], []
    # Smaller images have no place where the whole window fits.
    has_ssim = min(model.shape[1:]) >= SSIM_WINDOW_PIXELS
    for batch in reals.split(batch_images):
        real = _floats(batch).to(model.device, model.dtype)
        reconstructed = model.decode(model.encode(real)).clamp(-1.0, 1.0)
        errors.append(squared_error_per_image(real, reconstructed).cpu())
        if has_ssim:
            similarities.append(ssim_per_image(reconstructed, real).cpu())
    per_image = torch.cat(errors)
    return {
        "psnr_db": psnr_db(per_image.mean()).item(),
        "psnr_per_image_db": psnr_db(per_image).mean().item(),
        "ssim": torch.cat(similarities).mean().item() if has_ssim else None,
    }


def explain(report: Report) -> list[str]:
    """What each number of a report means, one plain line each, for people who meet them first."""
    lines = []

    def value(key: str) -> float | None:
        number = report.get(key)
        return None if number is None or math.isnan(number) else float(number)

    error, mean_error = value("latent_error_median"), value("latent_error_mean")
    constant = value("latent_variance")
    psnr, per_image = value("psnr_db"), value("psnr_per_image_db")
    mean_image, gain = value("mean_image_psnr_db"), value("gain_db")
    if error is not None and mean_error is not None and constant is not None:
        lines.append(
            f"latent error {error:.3f} (median; mean {mean_error:.3f}): how far the encoder is from the "
            f"latent behind a generated image, on {report['fresh_draws']} fresh ones; 0 is exact, {constant:.3g} is "
            "what the best constant answer gets"
        )
    if psnr is not None and per_image is not None:
        lines.append(
            f"reconstruction {psnr:.2f} dB PSNR (mean of the images' own: {per_image:.2f}): how close "
            f"G(E(x)) comes to {report['real_images']} real images; higher is closer, +6 dB halves the error"
        )
    if mean_image is not None:
        line = f"mean image {mean_image:.2f} dB PSNR: what answering every image with their average would score"
        if gain is not None:
            verdict = "so the latent does carry the image" if gain > 0 else "so the latent does not carry the image yet"
            line += f"; the model is {gain:+.2f} dB from there, {verdict}"
        lines.append(line)
    ssim = value("ssim")
    if ssim is not None:
        lines.append(f"SSIM {ssim:.3f}: likeness of local structure; 1 is identical, 0 unrelated")
    elif psnr is not None:
        lines.append(
            f"SSIM not given: its {SSIM_WINDOW_PIXELS}x{SSIM_WINDOW_PIXELS} window does not fit into images this small"
        )
    dimensions, entropy = value("effective_dimensions"), value("latent_entropy_nats")
    if dimensions is not None:
        lines.append(
            f"effective dimensions {dimensions:.1f} of {report['latent_dimensions']}: how many latent "
            "dimensions the encoder can tell apart; few make a low latent error easy, so read it beside "
            "the PSNR"
        )
    if entropy is not None:
        lines.append(
            f"latent entropy {entropy:.1f} nats: room for variety in the scaled latent; it falls as the "
            "scale concentrates on fewer dimensions"
        )
    broken = [name for name, number in report.items() if number is not None and math.isnan(number)]
    if broken:
        lines.append(f"{', '.join(broken)}: not a number, because the networks answer NaN; the training has diverged")
    if (share := value("accuracy")) is not None:
        lines.append(f"accuracy {share:.2%}: real images whose label it tells")
    elif report.get("latent_error_median") is None and report.get("psnr_db") is None:
        lines.append("this method has no encoder: it generates, but cannot reconstruct")
    return lines
