#!/usr/bin/env bash
# torch 2.13.0 (CPU), gloo: the sum of one element depends on how many others travel in the same tensor.
#
# all_reduce of the first n elements of a float32 tensor and all_reduce of the whole tensor add the same numbers of the
# same processes. With 2 processes every element is equal. With 3 processes a seventh of the elements differ in their
# last bits, with 8 half of them, and powers of two are no exception: the order in which gloo adds the ranks depends on where in
# the tensor an element stands. All ranks of one call agree. So neither padding, nor fusing two all-reduces into one, nor
# another bucket size keeps the bits of a distributed sum; two processes alone do not show it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/see.py" <<'PY'
import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WHOLE = 4096


def differing(rank: int, world: int, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=rank, world_size=world)
    mine = torch.randn(WHOLE, generator=torch.Generator().manual_seed(rank))
    sums = {}
    for length in (1, 128, 1024, WHOLE):
        sums[length] = mine[:length].clone()
        dist.all_reduce(sums[length])
    of_rank_0 = sums[WHOLE].clone()
    dist.broadcast(of_rank_0, 0)
    assert torch.equal(of_rank_0, sums[WHOLE]), "ranks disagree"
    if rank == 0:
        for length in (128, 1024):
            count = int((sums[length] != sums[WHOLE][:length]).sum())
            print(f"{world} processes: {count} of {length} sums differ from those of the {WHOLE}-element tensor")
            assert (count == 0) == (world == 2), count
    dist.destroy_process_group()


if __name__ == "__main__":
    print("torch", torch.__version__)
    for world in (2, 3, 4, 8):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        mp.spawn(differing, (world, port), nprocs=world)
    print("as described")
PY
cd "$folder"
CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/see.py"
