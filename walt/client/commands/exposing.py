"""`walt node expose` and `walt device expose`: a port here leads to a port of a device."""

from __future__ import annotations

import asyncio
import sys

from walt.client.operations.exposing import listen, serve


def expose(device: str, port: int, local_port: int) -> int:
    """Listen on all interfaces of this machine until ctrl-C; relay every connection."""
    listening = listen(local_port)
    print(
        f"Listening on port {local_port}; connections go to port {port} of {device}."
        " Type ctrl-C to stop."
    )
    sys.stdout.flush()
    asyncio.run(serve(listening, "REQ_TCP_TO_NODE", {"device": device, "port": port}, tell))
    return 0


def tell(text: str, wrong: bool) -> None:
    """Print a text about a connection."""
    print(text, file=sys.stderr if wrong else sys.stdout, flush=True)
