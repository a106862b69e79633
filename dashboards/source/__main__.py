"""python3 dashboards/source: writes dashboards/boards/*.json, one for each module next to this one that has a BOARD.

With --check it writes nothing, and fails where a file is not what it would write.
"""

import importlib
import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).parent
BOARDS = HERE.parent / "boards"


def made():
    """The text of each board, by the name of its file."""
    found = {}
    for path in sorted(HERE.glob("*.py")):
        made_by = importlib.import_module(path.stem) if not path.stem.startswith("__") else None
        if hasattr(made_by, "BOARD"):
            text = json.dumps(made_by.BOARD, indent=2, ensure_ascii=False)
            found[f"{made_by.BOARD['uid']}.json"] = text + "\n"
    return found


def main():
    boards = made()
    there = {path.name: path.read_text() for path in BOARDS.glob("*.json")}
    if "--check" in sys.argv:
        differ = sorted(name for name in boards.keys() | there.keys() if boards.get(name) != there.get(name))
        if differ:
            sys.exit(f"not what dashboards/source makes, run `python3 dashboards/source`: {', '.join(differ)}")
        return
    for name in there.keys() - boards.keys():
        (BOARDS / name).unlink()
    for name, text in boards.items():
        (BOARDS / name).write_text(text)


main()
