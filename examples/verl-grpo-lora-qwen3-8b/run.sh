#!/usr/bin/env bash
# Train with verl. Further arguments are overrides, they win over those in train.sh. On every node of the job; what it reads stands in launch/env.sh.
# Further arguments go to the framework's own command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=launch/env.sh
source launch/env.sh

python3 prepare_data.py
exec bash train.sh "$@"
