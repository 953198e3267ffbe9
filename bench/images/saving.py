"""A client that changes 10 MB in an image session and saves it; a child of the bench.

Prints the seconds of the saving, then waits for a line before it closes the session.
With `hold` in place of `save` nothing is saved: podman itself commits the container.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

from walt.client.session import Session
from walt.client.operations.transfers import Told, send
from walt.common.transfers import FILE, Place


def main() -> None:
    """Run once."""
    image = sys.argv[1]
    session = Session()
    name = session.call("cs.images.open", image=image, task="transfer")[b"session"].decode()
    with tempfile.NamedTemporaryFile() as data:
        data.write(os.urandom(10_000_000))
        data.flush()
        send("REQ_TAR_TO_IMAGE", {"session": name}, data.name, FILE, Place("/root", "bench"), Told())
    start = time.monotonic()
    if sys.argv[2] == "save":
        session.call("cs.images.save", session=name, image=image)
    print(f"saved {time.monotonic() - start}", flush=True)
    sys.stdin.readline()
    session.call("cs.images.close", session=name)


main()
