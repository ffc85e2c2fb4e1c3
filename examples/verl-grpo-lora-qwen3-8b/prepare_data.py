"""Write data/train.parquet, the rows as verl reads them, from data/train.jsonl.

    python3 prepare_data.py                            # does nothing when the file is newer than the rows
    python3 prepare_data.py --source ROWS.jsonl --target FILE.parquet

run.sh calls it. Columns that are not named here reach your reward function by name.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

SOURCE = 'data/train.jsonl'
TARGET = 'data/train.parquet'
BATCH = 16  # data.train_batch_size: fewer rows make no step


def convert(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A prompt with its solution -> verl's row."""
    rest = dict(row)
    prompt, solution = rest.pop('prompt'), rest.pop('solution', "")
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    # As text: Parquet would give every row the columns of all others.
    extra = {"index": number, "columns": json.dumps(rest, ensure_ascii=False, default=str)}
    return {
        "data_source": "rewards.py",
        "prompt": [{"role": turn["role"], "content": turn["content"]} for turn in prompt],
        "ability": "",
        "reward_model": {"style": "rule", "ground_truth": str(solution)},
        "extra_info": extra,
    }


def read(source: str) -> list[dict[str, Any]]:
    if Path(source).suffix in (".jsonl", ".json"):
        with open(source, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.strip()]
    from datasets import load_dataset

    return [dict(row) for row in load_dataset(source, split="train")]


def fresh(source: str, target: Path) -> bool:
    if not target.exists():
        return False
    return not Path(source).exists() or target.stat().st_mtime >= Path(source).stat().st_mtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--target", type=Path, default=Path(TARGET))
    arguments = parser.parse_args()
    if fresh(arguments.source, arguments.target):
        return
    import pandas

    rows = [convert(row, number) for number, row in enumerate(read(arguments.source))]
    arguments.target.parent.mkdir(parents=True, exist_ok=True)
    # Several nodes may do this at once on shared storage: the last finished file wins, whole.
    unfinished = arguments.target.with_suffix(f".{os.uname().nodename}.{os.getpid()}")
    pandas.DataFrame(rows).to_parquet(unfinished)
    os.replace(unfinished, arguments.target)
    print(f"{arguments.target}: {len(rows)} rows")
    if len(rows) < BATCH:
        print(f"warning: one step takes {BATCH} rows; lower data.train_batch_size in train.sh")


if __name__ == "__main__":
    main()
