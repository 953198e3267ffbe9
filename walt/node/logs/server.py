"""Where the server is: /bin/walt-env, which it writes into each image it exports."""

from __future__ import annotations

import re
from pathlib import Path

ENVIRONMENT = "/bin/walt-env"
_VALUE = re.compile(r"^\s*(?:export\s+)?(walt_server_\w+)=['\"]?([0-9A-Za-z.:-]+)['\"]?\s*$", re.M)

Address = tuple[str, int]


class NoServer(Exception):
    """This system does not know a WalT server; the text says why."""


def server_address(path: str = ENVIRONMENT) -> Address:
    """Return the address and the port to which logs go. Raises NoServer."""
    try:
        values = dict(_VALUE.findall(Path(path).read_text(errors="replace")))
        return values["walt_server_ip"], int(values["walt_server_logs_port"])
    except OSError as error:
        reason = str(error.strerror)
    except (KeyError, ValueError):
        reason = "it does not tell the server"
    raise NoServer(f"{path}: {reason}; logs work on nodes that a WalT server booted")
