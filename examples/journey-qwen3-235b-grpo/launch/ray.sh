#!/usr/bin/env bash
# Submit the run to a Ray cluster of 16 nodes that is up. Arguments are overrides of train.sh.
#   every node, from this repo:  source launch/ray_env.sh
#   one node:                    ray start --head --port=$RAY_PORT
#   the others:                  ray start --address=HEAD:$RAY_PORT
#   then:                        MASTER_ADDR=HEAD launch/ray.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/env.sh
source launch/env.sh
# shellcheck source=launch/ray_env.sh
source launch/ray_env.sh

# Workers see only what the runtime environment names. Secrets stay out, it is shown on the dashboard.
runtime_env="$(python3 - <<'PY'
import json, os

PREFIXES = ("HF_", "HYDRA_", "NCCL_", "GLOO_", "VLLM_", "VERL_", "WANDB_", "MLFLOW_", "SWANLAB_")
SECRETS = ("TOKEN", "KEY", "PASSWORD", "SECRET")
chosen = {
    name: value
    for name, value in os.environ.items()
    if name.startswith(PREFIXES) and not any(word in name for word in SECRETS)
}
print(json.dumps({"env_vars": chosen}))
PY
)"

exec ray job submit --address="${RAY_API_SERVER:-http://$MASTER_ADDR:8265}" --runtime-env-json="$runtime_env" -- \
  bash "$PWD/run.sh" "$@"
