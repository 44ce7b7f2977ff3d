"""`python lab/check_data.py`: preview what will be learned. Runs the stages before it that have not run yet.

The same as `lab extract`, `lab format` and `lab check-data` in turn, with the flags of the last.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # A script's own folder comes first on the path, where `import evaluate` would find ours instead of the library.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from lab.cli import main

    raise SystemExit(main(["check-data", *sys.argv[1:]], with_stages_before=True))
