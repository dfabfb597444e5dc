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
LEARNING_RATES = (
    "tests/training/test_runs.py::test_learning_rates_decay_with_every_epoch_and_a_continued_run_stands_where_it_was"
)

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
        (
            "tests/distributed/test_shard_invariance.py"
            "::test_two_processes_with_four_workers_each_that_decode_every_image_anew_train_the_same",
        ),
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
        ("tests/distributed/test_faults.py::test_a_bit_that_differs_ends_the_run_naming_the_process",),
    ),
    Fault(
        "a continued run starts its optimizers afresh",
        f"{PACKAGE}/training/state.py",
        "            phase.load_moments(moments)",
        "            pass",
        ("tests/training/test_interruptions.py",),
    ),
    Fault(
        "gradients are those of one process",
        f"{PACKAGE}/distributed/ddp.py",
        "with nullcontext() if last else self.accelerator.no_sync(self.wrapped):",
        "with self.accelerator.no_sync(self.wrapped):",
        ("tests/distributed/test_every_method.py",),
    ),
    Fault(
        "a step has one collective more",
        f"{PACKAGE}/distributed/ddp.py",
        "        self._carrier.grad = self._piggyback = None",
        "        self._carrier.grad = self._piggyback = torch.distributed.barrier()",
        ("tests/distributed/test_collectives.py",),
    ),
    Fault(
        "the encoder is not trained",
        f"{PACKAGE}/losses/inversion.py",
        "(difference * scale).square().mean()",
        "(difference * scale).square().mean() * 0",
        ("tests/training/test_learning.py",),
    ),
    Fault(
        "the categorical prior stays where it begins",
        f"{PACKAGE}/latents/categories.py",
        "before.copy_(torch.where(apply > 0, moved, before))",
        "pass",
        ("tests/training/test_clusters_reproduction.py",),
    ),
    Fault(
        "learning rates do not decay",
        f"{PACKAGE}/training/optimizers.py",
        "self._decay ** (step * self._batch // self._epoch_images)",
        "self._decay ** 0",
        (LEARNING_RATES,),
    ),
    Fault(
        "learning rates decay within an epoch",
        f"{PACKAGE}/training/optimizers.py",
        "self._decay ** (step * self._batch // self._epoch_images)",
        "self._decay ** (step * self._batch / self._epoch_images)",
        (LEARNING_RATES,),
    ),
    Fault(
        "a continued build begins a shard one sample late",
        f"{PACKAGE}/building/split_writer.py",
        "                start = skip if number == first else 0",
        "                start = skip + 1 if number == first and skip else 0",
        ("tests/building/test_building.py",),
    ),
    Fault(
        "a continued build may mix other images in",
        f"{PACKAGE}/building/split_writer.py",
        "        if not same or (done.ended and done.item != len(self._items)):",
        "        if False:",
        ("tests/building/test_building.py",),
    ),
    Fault(
        "DeepSpeed's losses are divided once more",
        f"{PACKAGE}/distributed/deepspeed.py",
        "self.engine.backward(terms.loss if count == 1 else terms.loss / count, scale_wrt_gas=False)",
        "self.engine.backward(terms.loss / (1.001 * count), scale_wrt_gas=False)",
        ("tests/distributed/test_deepspeed.py",),
    ),
    Fault(
        "moments of a run under DDP are not taken over by ZeRO",
        f"{PACKAGE}/distributed/deepspeed.py",
        "            self.optimizer.state[group.partition] = state",
        "            pass",
        ("tests/distributed/test_deepspeed.py",),
    ),
    Fault(
        "fewer processes go on with the streams of as many first ones",
        f"{PACKAGE}/distributed/streams.py",
        "return range(rank * each, (rank + 1) * each)",
        "return range(rank, rank + each)",
        ("tests/distributed/test_faults.py::test_after_kill_9_the_others_name_the_process_and_half_as_many_continue",),
    ),
    Fault(
        "draws come from NumPy's global generator",
        f"{PACKAGE}/latents/draws.py",
        "            bits[i, j] = generator.random_raw(count)",
        "            bits[i, j] = np.random.randint(0, 2**63, count)",
        ("tests/distributed/test_every_method.py",),
    ),
    Fault(
        "weights depend on the order of a set of names",
        f"{PACKAGE}/networks/initialisation.py",
        'key = zlib.crc32(f"{name}.{parameter_name}".encode())',
        "key = list({each for each, _ in module.named_parameters()}).index(parameter_name)",
        ("tests/distributed/test_every_method.py",),
    ),
    Fault(
        "micro-batches before the last are reduced too",
        f"{PACKAGE}/distributed/ddp.py",
        "with nullcontext() if last else self.accelerator.no_sync(self.wrapped):",
        "with nullcontext():",
        ("tests/distributed/test_collectives.py",),
    ),
    Fault(
        "the labels' means are reduced twice",
        f"{PACKAGE}/distributed/statistics.py",
        "        dist.all_reduce(fused)",
        "        dist.all_reduce(fused.clone()), dist.all_reduce(fused)",
        ("tests/distributed/test_collectives.py::test_cgpgan_also_reduces_the_means_of_its_labels",),
    ),
    Fault(
        "the average of the weights stays where it begins",
        f"{PACKAGE}/training/ema.py",
        "torch._foreach_lerp_(averages, trained, weight.item())",
        "pass",
        ("tests/training/test_learning.py",),
    ),
    Fault(
        "the variance stays where it begins",
        f"{PACKAGE}/latents/scale.py",
        "self.variance.copy_(torch.where(apply > 0, moved, self.variance))",
        "pass",
        ("tests/training/test_learning.py",),
    ),
    Fault(
        "a run that moves to more processes starts its optimizers afresh",
        f"{PACKAGE}/training/state.py",
        "            phase.load_moments(moments)",
        "            pass",
        ("tests/distributed/test_invariance.py::test_a_run_moves_from_one_process_to_four",),
    ),
    Fault(
        "a layer remembers its last batch",
        f"{PACKAGE}/networks/minibatch_deviation.py",
        "        return leaky_relu(both",
        '        self.register_buffer("before", deviation.detach(), persistent=False)\n        return leaky_relu(both',
        ("tests/methods/test_every_network.py",),
    ),
    Fault(
        "an evaluation keeps the training waiting",
        f"{PACKAGE}/training/run_writer.py",
        "        if not self._pictures.start(job):",
        "        if job():",
        ("tests/distributed/test_faults.py::test_pictures_and_evaluations_longer_than_the_timeout_delay_nobody",),
    ),
    Fault(
        "a build takes the last of its processes' results first",
        f"{PACKAGE}/parallel_map.py",
        "        while pending:\n            yield pending.popleft().result()",
        "        while pending:\n            yield pending.pop().result()",
        ("tests/building/test_building.py::test_an_interruption_at_any_chunk_changes_nothing",),
    ),
    Fault(
        "every process of a node downloads for itself",
        f"{PACKAGE}/storage/node_cache.py",
        "return FileLock(self._locks / sha256[:_LOCK_DIGITS])",
        'return FileLock(self._locks / f"{sha256[:_LOCK_DIGITS]}-{os.getpid()}")',
        ("tests/data/test_prefetching.py::test_four_processes_of_a_node_fetch_each_shard_once",),
    ),
    Fault(
        "a launcher's restart looks like the first start",
        f"{PACKAGE}/launching/node.py",
        "restarts = self.launcher.restarted_before + self.launcher.rounds - 1",
        "restarts = self.launcher.restarted_before",
        (
            "tests/launchers/test_node_launcher.py"
            "::test_a_killed_worker_restarts_both_nodes_and_the_run_is_the_uninterrupted_one",
        ),
    ),
    Fault(
        "all nodes read the streams of the first",
        f"{PACKAGE}/distributed/streams.py",
        "return range(rank * each, (rank + 1) * each)",
        "return range(each)",
        ("tests/multinode/test_localcluster.py::test_three_launchers_on_the_loopback_train_like_one_process",),
    ),
    Fault(
        "a continued run has another order of the data, that of a set of names",
        f"{PACKAGE}/data/order.py",
        "        self._seed = seed\n",
        '        self._seed = seed + list({str(number) for number in range(1000)}).index("0")\n',
        ("tests/training/test_interruptions.py::test_kill_9_at_a_random_step_and_rerun",),
    ),
    Fault(
        "a run that goes on after a fault has another order of the data, that of a set of names",
        f"{PACKAGE}/data/order.py",
        "        self._seed = seed\n",
        '        self._seed = seed + list({str(number) for number in range(1000)}).index("0")\n',
        ("tests/distributed/test_faults.py::test_a_stopped_process_is_named_and_the_run_continues",),
    ),
    Fault(
        "classes are in the order of a set of names",
        f"{PACKAGE}/sources/labels.py",
        "categories = sorted(set(column))",
        "categories = list(set(column))",
        ("tests/sources/test_layouts.py", "tests/sources/test_any_layout.py"),
    ),
)
