#!/usr/bin/env bash
# Train with LLaMA-Factory. On every node of the job; what it reads stands in launch/env.sh.
# Further arguments go to the framework's own command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=launch/env.sh
source launch/env.sh

exec llamafactory-cli train train.yaml "$@"
