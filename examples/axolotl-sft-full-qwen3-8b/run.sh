#!/usr/bin/env bash
# Train with Axolotl. Arguments are keys of train.yaml: --learning-rate=1e-5. On every node of the job; what it reads stands in launch/env.sh.
# Further arguments go to the framework's own command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=launch/env.sh
source launch/env.sh

# Axolotl keeps tokenised rows under a name that does not depend on what is in the file. This one does.
prepared="prepared/$(cat data/train.jsonl | cksum | cut -d ' ' -f 1)"
exec axolotl train train.yaml --launcher torchrun --dataset-prepared-path="$prepared" "$@" -- \
  --standalone --nproc_per_node "$NPROC_PER_NODE"
