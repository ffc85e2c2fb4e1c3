"""Copy a YAML or JSON configuration with a few keys changed, and print each change.

    python smoke/override.py train.yaml smoke/work/train.yaml max_steps=3 model.path=smoke/work/model
    python smoke/override.py train.yaml out.yaml --drop accelerate_config

Values are read as YAML; dots reach into nested mappings.
"""

import json
import sys
from pathlib import Path

import yaml


def main() -> int:
    source, target, *changes = sys.argv[1:]
    content = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
    drop = False
    for change in changes:
        if change == "--drop":
            drop = True
            continue
        dotted, _, text = change.partition("=")
        *parents, last = dotted.split(".")
        place = content
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
        before = place.get(last, "(not set)")
        if drop:
            if last in place:
                del place[last]
                print(f"override: {dotted}: {before} -> (removed)")
        else:
            place[last] = yaml.safe_load(text)
            if place[last] != before:
                print(f"override: {dotted}: {before} -> {place[last]}")
        drop = False
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    text = (
        json.dumps(content, indent=2)
        if target.endswith(".json")
        else yaml.safe_dump(content, sort_keys=False)
    )
    Path(target).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
