"""Runs inside a framework's environment: judges a JSON list of files in one process, prints a JSON object.

python judge_many.py JUDGE.py < work.json
"""

import importlib.util
import json
import os
import sys
from pathlib import Path


def main() -> int:
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    spec = importlib.util.spec_from_file_location("the_judge", sys.argv[1])
    judge = importlib.util.module_from_spec(spec)
    sys.modules["the_judge"] = judge
    spec.loader.exec_module(judge)
    found = {}
    for item in json.load(sys.stdin):
        path = Path(item["path"])
        os.chdir(path.parent)
        try:
            found[item["path"]] = judge.judge(
                path.name, world_size=item["world_size"], model_dir=item["model_dir"]
            )
        except Exception as error:  # a judge that breaks has not accepted
            found[item["path"]] = [f"the judge broke: {type(error).__name__}: {error}"]
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
