"""Faults that a test must find: a piece of code, what to put in its place, and the tests that then fail."""

from typing import NamedTuple


class Fault(NamedTuple):
    """One fault.

    Attributes:
        name: what goes wrong, in words.
        file: of the code, from the top folder.
        right: what stands there, exactly once.
        wrong: what to put in its place.
        tests: files of tests, or tests by their pytest names, of which one or more must fail.
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


PACKAGE = "platform/latentscale"

FAULTS = (
    Fault(
        "each process keeps the statistics of its own samples",
        f"{PACKAGE}/distributed/ddp.py",
        "torch.mul(self._carrier.grad, self.accelerator.num_processes, out=self._piggyback)",
        "pass",
        ("tests/distributed/test_invariance.py",),
    ),
    Fault(
        "sums piggybacked on gradients are means",
        f"{PACKAGE}/distributed/ddp.py",
        "torch.mul(self._carrier.grad, self.accelerator.num_processes, out=self._piggyback)",
        "torch.mul(self._carrier.grad, 1, out=self._piggyback)",
        ("tests/distributed/test_piggyback.py",),
    ),
    Fault(
        "means over the labels of one process",
        f"{PACKAGE}/distributed/statistics.py",
        "        dist.all_reduce(fused)",
        "        pass",
        ("tests/distributed/test_every_method.py",),
    ),
    Fault(
        "every process reads the streams of the first",
        f"{PACKAGE}/distributed/streams.py",
        "return range(rank * each, (rank + 1) * each)",
        "return range(each)",
        ("tests/distributed/test_shard_invariance.py",),
    ),
    Fault(
        "every stream draws the same latents",
        f"{PACKAGE}/latents/draws.py",
        "counter[:] = (0, 0, step, stream)",
        "counter[:] = (0, 0, step, 0)",
        ("tests/latents/test_draws.py",),
    ),
    Fault(
        "the variance forgets as fast as it should remember",
        f"{PACKAGE}/latents/scale.py",
        "torch.lerp(total.to(self.variance.dtype) / count, self.variance, self.decay)",
        "torch.lerp(self.variance, total.to(self.variance.dtype) / count, self.decay)",
        ("tests/latents/test_scale.py",),
    ),
    Fault(
        "a skipped step moves the variance",
        f"{PACKAGE}/latents/scale.py",
        "torch.where(apply > 0, moved, self.variance)",
        "moved",
        ("tests/latents/test_scale.py",),
    ),
    Fault(
        "a skipped step moves the weights",
        f"{PACKAGE}/training/step.py",
        "phase.step(skips[-1], norm)",
        "phase.step(torch.zeros_like(skips[-1]), norm)",
        ("tests/distributed/test_agreement.py",),
    ),
    Fault(
        "PVDGAN's encoder loss is taken over the reals' half",
        f"{PACKAGE}/methods/passes.py",
        "return x[len(x) // 2 :]",
        "return x[: len(x) // 2]",
        ("tests/methods/test_equations.py",),
    ),
    Fault(
        "the latent error is not scaled",
        f"{PACKAGE}/losses/inversion.py",
        "(difference * scale).square().mean()",
        "difference.square().mean()",
        ("tests/methods/test_equations.py",),
    ),
    Fault(
        "the relativistic generator helps the reals",
        f"{PACKAGE}/losses/adversarial.py",
        "F.softplus(-(fake - real))",
        "F.softplus(-(real - fake))",
        ("tests/methods/test_relativistic.py",),
    ),
    Fault(
        "every epoch has the first one's order",
        f"{PACKAGE}/data/order.py",
        "places[inside] = self._shuffled_window(epoch, window)[within_windows[inside]]",
        "places[inside] = self._shuffled_window(0, window)[within_windows[inside]]",
        ("tests/data/test_order.py",),
    ),
    Fault(
        "processes that differ are not noticed",
        f"{PACKAGE}/distributed/fingerprint.py",
        "    if different := differing_ranks(gathered.tolist()):",
        "    if different := []:",
        ("tests/distributed/test_faults.py",),
    ),
    Fault(
        "a continued run starts its optimizers afresh",
        f"{PACKAGE}/training/state.py",
        "            phase.load_moments(moments)",
        "            pass",
        ("tests/training/test_interruptions.py",),
    ),
)
