"""The built wheel, alone in an empty environment, does the main job from any folder."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 600


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_wheel_does_the_main_job(tmp_path: Path) -> None:
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        tmp_path / "dist",
        ROOT,
        cwd=tmp_path,
    )
    wheel = next((tmp_path / "dist").glob("*.whl"))
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--retries", "8", wheel, cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": str(n)}]}
        for n in range(40)
    ]
    (elsewhere / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    advisor = tmp_path / "env" / "bin" / "advisor"
    answer = run(
        advisor,
        "recommend",
        "--model",
        "Qwen/Qwen3-8B",
        "--gpu",
        "h100",
        "--method",
        "sft",
        "--output",
        "json",
        cwd=elsewhere,
    )
    assert json.loads(answer)["ranking"]
    run(
        advisor,
        "new",
        "starter",
        "--model",
        "Qwen/Qwen3-8B",
        "--gpu",
        "h100",
        "--data",
        "rows.jsonl",
        "--yes",
        cwd=elsewhere,
    )
    written = json.loads((elsewhere / "starter" / "advice.json").read_text())
    paths = [path for role in written["files"].values() for path in role]
    assert all((elsewhere / "starter" / path).is_file() for path in paths)
    shipped = next((tmp_path / "env" / "lib").glob("python*/site-packages/advisor/_data/rules"))
    assert (shipped / "compiled.json").is_file()
    snapshots = {path.relative_to(ROOT / "rules") for path in (ROOT / "rules" / "schemas").rglob("*.json")}
    assert snapshots <= {path.relative_to(shipped) for path in (shipped / "schemas").rglob("*.json")}
