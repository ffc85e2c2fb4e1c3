#!/usr/bin/env bash
# Train with verl. Further arguments are overrides, they win over those in train.sh. On every node of the job; what it reads stands in launch/env.sh.
# Further arguments go to the framework's own command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=launch/env.sh
source launch/env.sh

python3 prepare_data.py
# shellcheck source=launch/ray_env.sh
source launch/ray_env.sh

# Without RAY_ADDRESS this makes the cluster: node 0 leads and drives, the others join and serve.
if [[ -z "${RAY_ADDRESS:-}" ]]; then
  if ((NODE_RANK > 0)); then
    until ray start --address="$MASTER_ADDR:$RAY_PORT" --num-gpus="$NPROC_PER_NODE" --block; do
      ((SECONDS < 900)) || exit 0 # node 0 has ended, or never came
      sleep 5
    done
    exit 0
  fi
  ray start --head --port="$RAY_PORT" --num-gpus="$NPROC_PER_NODE" --disable-usage-stats --block &
  head=$!
  trap 'kill "$head"; rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
  export RAY_ADDRESS="$MASTER_ADDR:$RAY_PORT"
fi

python3 - "$((NNODES * NPROC_PER_NODE))" <<'PY'
# verl gives up at once when GPUs are missing: wait until every node has joined.
import sys, time
import ray

wanted, started = int(sys.argv[1]), time.time()
while True:
    try:
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        if (there := ray.cluster_resources().get("GPU", 0)) >= wanted:
            break
        print(f"{there:g} of {wanted} GPUs have joined", flush=True)
    except ConnectionError as error:
        print(error, flush=True)
    if time.time() - started > 900:
        sys.exit("not all nodes joined within 15 minutes")
    time.sleep(5)
PY
bash train.sh "$@"
