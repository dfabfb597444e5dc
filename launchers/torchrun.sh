#!/usr/bin/env bash
# Plain torchrun with the options that a recipe wants. On each node, with K from 0:
#
#   launchers/torchrun.sh [--dry-run] [--nodes N --node-rank K --main-address HOST [--main-port PORT]]
#       [--processes-per-node P] recipes/pvdgan.py [key=value …]
#
# -m latentscale train pvdgan in the place of recipes/pvdgan.py starts the recipe of an installed package.
#
# --dry-run prints the command, quoted for a shell. P is by default the number of GPUs, or 1 where there is none.
# torchrun exits with 1 for whatever a process exits with, and after a signal; python -m latentscale.launching.node knows
# better, and starts a lost gang again on all nodes.
set -euo pipefail

refuse() {
    echo "error: $1" >&2
    exit 2
}

nodes=1 node_rank="" main_address="" main_port=29500 processes="" dry_run=""
while (($#)); do
    case $1 in
        --dry-run) dry_run=yes; shift; continue ;;
        --nodes | --node-rank | --main-address | --main-port | --processes-per-node)
            (($# > 1)) || refuse "$1 needs a value" ;;&
        --nodes) nodes=$2 ;;
        --node-rank) node_rank=$2 ;;
        --main-address) main_address=$2 ;;
        --main-port) main_port=$2 ;;
        --processes-per-node) processes=$2 ;;
        -m) break ;;
        -*) refuse "there is no option $1 (see the head of $0)" ;;
        *) break ;;
    esac
    shift 2
done
(($#)) || refuse "no recipe is given: end the command with one, such as recipes/pvdgan.py key=value"
for number in "$nodes" "$main_port" "${node_rank:-0}" "${processes:-1}"; do
    [[ $number =~ ^[0-9]+$ ]] || refuse "$number is no number"
done
if ((nodes > 1)); then
    [[ $node_rank ]] || refuse "--node-rank is missing: $nodes nodes take part, and each must say it"
    [[ $main_address ]] || refuse "--main-address is missing: $nodes nodes take part, and each must say it"
    ((node_rank < nodes)) || refuse "--node-rank $node_rank: with --nodes $nodes it is 0 to $((nodes - 1))"
fi
if [[ ! $processes ]]; then
    processes=$( (nvidia-smi --list-gpus 2>/dev/null || true) | wc -l)
    ((processes > 0)) || processes=1
fi

command=(torchrun --nnodes "$nodes" --nproc-per-node "$processes")
if ((nodes > 1)); then
    command+=(--node-rank "$node_rank" --master-addr "$main_address" --master-port "$main_port")
else
    # a free port, so that two runs on one machine do not meet
    command+=(--standalone)
fi
command+=("$@")
# whatever an outer launcher, or a platform, has said in PET_*
for name in ${!PET_*}; do
    unset "$name"
done
# seconds that processes have for a checkpoint after SIGTERM
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}
if [[ $dry_run ]]; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
exec "${command[@]}"
