#!/usr/bin/env bash
# Train with ms-swift. Further arguments are --key value, they win over train.yaml. On every node of the job; what it reads stands in launch/env.sh.
# Further arguments go to the framework's own command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=launch/env.sh
source launch/env.sh

# It starts torchrun itself with NPROC_PER_NODE, NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT.
exec swift sft train.yaml "$@"
