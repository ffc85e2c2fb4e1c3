#!/usr/bin/env bash
# Train with ms-swift. Further arguments are --key value, they win over train.yaml. On every node of the job; what it reads stands in launch/env.sh.
# Further arguments go to the framework's own command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=launch/env.sh
source launch/env.sh

# Caches of rows must be on storage that all nodes see, or the start may hang.
export MODELSCOPE_CACHE="${MODELSCOPE_CACHE:-$PWD/.cache/modelscope}"
# It starts torchrun itself with NPROC_PER_NODE, NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT.
exec megatron sft train.yaml "$@"
