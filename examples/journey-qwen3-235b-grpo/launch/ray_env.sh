# shellcheck shell=bash
# How the nodes of one Ray cluster know each other. The same on every node, started from this folder.
export RAY_PORT="${RAY_PORT:-6379}"

# Ray runs whatever it is sent: a secret that only this run's nodes can read keeps others out. Ray turns this
# on by itself on machines that hold a token file, and nodes that disagree cannot join.
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
export RAY_AUTH_TOKEN_PATH="${RAY_AUTH_TOKEN_PATH:-$PWD/launch/.ray_token}"
if [[ "$RAY_AUTH_MODE" == token && -z "${RAY_AUTH_TOKEN:-}" && ! -e "$RAY_AUTH_TOKEN_PATH" ]]; then
  if ((${NODE_RANK:-0} == 0)); then
    (umask 077 && python3 -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")
  else
    echo "waiting for $RAY_AUTH_TOKEN_PATH, which node 0 writes" >&2
    until [[ -e "$RAY_AUTH_TOKEN_PATH" ]]; do sleep 2; done
  fi
fi
