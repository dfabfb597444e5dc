#!/usr/bin/env bash
# torch 2.13.0 (CPU), gloo: with static_graph=True a gradient penalty leaves DDP's gradients unaveraged, in silence.
#
# A discriminator in DistributedDataParallel, and R1's penalty by torch.autograd.grad(..., create_graph=True) on its output:
# two processes with half of the batch each take the steps of one process to 1e-12, and their weights are equal. With
# static_graph=True, which is advised where a graph never changes, as here, the call of autograd.grad counts as the
# backward pass: the gradients of the loss are never averaged. Each process trains a model of its own on its own half. No
# error, and no warning of it. find_unused_parameters=True does not have this fault. With the penalty inside the wrapped module's forward,
# static_graph=True is right too.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/see.py" <<'PY'
import os
import socket
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double()


def penalised(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    x.requires_grad_()
    out = model(x)
    (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    return (out + slope.square().sum(1, keepdim=True)).mean()


class Phase(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return penalised(self.network, x)


def trained(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    loss = model if isinstance(getattr(model, "module", None), Phase) else lambda x: penalised(model, x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss(x.clone()).backward()
        optimizer.step()
    return torch.cat([weight.detach().ravel() for weight in model.parameters()])


def see(rank: int, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    alone = trained(network(), x)
    for name, inside, static in (
        ("penalty outside", False, False), ("penalty outside, static_graph", False, True),
        ("penalty inside, static_graph", True, True),
    ):
        wrapped = DistributedDataParallel(Phase() if inside else network(), static_graph=static)
        mine = trained(wrapped, x[4 * rank : 4 * rank + 4])
        both = [torch.empty_like(mine) for _ in range(2)]
        dist.all_gather(both, mine)
        off, apart = (float((a - b).abs().max()) for a, b in ((mine, alone), both))
        if rank == 0:
            print(f"{name}: {off:.1e} from one process, {apart:.1e} between the two")
        if static and not inside:
            assert off > 1e-3 and apart > 1e-3
        else:
            assert off < 1e-12 and apart == 0
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # how gloo's threads end is not the subject


if __name__ == "__main__":
    print("torch", torch.__version__)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    mp.spawn(see, (number,), nprocs=2)
    print("as described")
PY
cd "$folder"
CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/see.py"
