"""A worker for tests: it echoes its arguments, or hangs."""

from __future__ import annotations

import time
from typing import Any

from walt.server.workers import main


def _job(arguments: dict[str, Any], progress: main.Progress) -> Any:
    if arguments["do"] == "hang":
        progress("hanging")
        time.sleep(600)
    return arguments


if __name__ == "__main__":
    main.find = lambda name: _job
    main.main()
