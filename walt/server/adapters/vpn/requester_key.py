"""What proves that root of the server's machine asks in the name of a board."""

from __future__ import annotations

import secrets
from pathlib import Path

from walt.common.files import write_atomic

FILE = "requester-key"  # below STATE-DIR/vpn-server


def ensure_requester_key(directory: Path) -> str:
    """Make the key once, in a file that root alone reads; return it."""
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    file = directory / FILE
    known = file.read_text().strip() if file.exists() else ""
    if not known:  # a power failure may leave an empty file
        known = secrets.token_hex(32)
        write_atomic(file, known + "\n", 0o600)
    file.chmod(0o600)
    return known
