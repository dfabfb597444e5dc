#!/usr/bin/env bash
# Plain torchrun with the options that a recipe needs. On each node, with K from 0:
#
#   launchers/torchrun.sh [--dry-run] [--nodes N --node-rank K --main-address HOST [--main-port PORT]]
#       [--processes-per-node P] recipes/pvdgan.py [key=value …]
#
# -m latentscale train pvdgan in the place of recipes/pvdgan.py starts the recipe of an installed package.
#
# --dry-run prints the command, quoted for a shell. By default P is the number of GPUs, or 1 without GPUs.
# torchrun exits with 1 whatever status a process exits with, and after a signal. python -m latentscale.launching.node
# exits with a meaningful status, and restarts the processes of all nodes after a failure.
set -euo pipefail

fail() {
    echo "error: $1" >&2
    exit 2
}

nodes=1 node_rank="" main_address="" main_port=29500 processes="" dry_run=""
while (($#)); do
    case $1 in
        --dry-run) dry_run=yes; shift; continue ;;
        --nodes | --node-rank | --main-address | --main-port | --processes-per-node)
            (($# > 1)) || fail "$1 needs a value" ;;&
        --nodes) nodes=$2 ;;
        --node-rank) node_rank=$2 ;;
        --main-address) main_address=$2 ;;
        --main-port) main_port=$2 ;;
        --processes-per-node) processes=$2 ;;
        -m) break ;;
        -*) fail "unknown option $1 (see the top of $0)" ;;
        *) break ;;
    esac
    shift 2
done
(($#)) || fail "no recipe given: end the command with one, such as recipes/pvdgan.py key=value"
for number in "$nodes" "$main_port" "${node_rank:-0}" "${processes:-1}"; do
    [[ $number =~ ^[0-9]+$ ]] || fail "$number must be a whole number"
done
if ((nodes > 1)); then
    [[ $node_rank ]] || fail "--node-rank is missing: each of $nodes nodes needs it"
    [[ $main_address ]] || fail "--main-address is missing: each of $nodes nodes needs it"
    ((node_rank < nodes)) || fail "--node-rank $node_rank: with --nodes $nodes it must be 0 to $((nodes - 1))"
fi
if [[ ! $processes ]]; then
    processes=$( (nvidia-smi --list-gpus 2>/dev/null || true) | wc -l)
    ((processes > 0)) || processes=1
fi

command=(torchrun --nnodes "$nodes" --nproc-per-node "$processes")
if ((nodes > 1)); then
    command+=(--node-rank "$node_rank" --master-addr "$main_address" --master-port "$main_port")
else
    # a free port, so that two runs on one machine do not conflict
    command+=(--standalone)
fi
command+=("$@")
# an outer launcher or a platform may have set PET_*
for name in ${!PET_*}; do
    unset "$name"
done
# seconds for a checkpoint after SIGTERM
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}
if [[ $dry_run ]]; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
exec "${command[@]}"
