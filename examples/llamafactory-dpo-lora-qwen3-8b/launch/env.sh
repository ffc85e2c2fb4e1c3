# shellcheck shell=bash
# One vocabulary for every launcher: NNODES, NODE_RANK, NPROC_PER_NODE, MASTER_ADDR, MASTER_PORT.
# Set them yourself, or let Slurm, Kubeflow Trainer (PET_*) or SkyPilot set theirs.
export NNODES="${NNODES:-${SLURM_NNODES:-${PET_NNODES:-${SKYPILOT_NUM_NODES:-1}}}}"
export NODE_RANK="${NODE_RANK:-${SLURM_NODEID:-${PET_NODE_RANK:-${SKYPILOT_NODE_RANK:-0}}}}"
export NPROC_PER_NODE="${NPROC_PER_NODE:-${PET_NPROC_PER_NODE:-${SKYPILOT_NUM_GPUS_PER_NODE:-1}}}"
if [[ -z "${MASTER_ADDR:-}" && -n "${SKYPILOT_NODE_IPS:-}" ]]; then
  MASTER_ADDR="$(head -n 1 <<<"$SKYPILOT_NODE_IPS")"
fi
export MASTER_ADDR="${MASTER_ADDR:-${PET_MASTER_ADDR:-127.0.0.1}}"
export MASTER_PORT="${MASTER_PORT:-${PET_MASTER_PORT:-29500}}"

# Memory held by PyTorch's allocator grows in segments: less fragmentation with varying lengths.
export PYTORCH_CUDA_ALLOC_CONF="${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}"
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
