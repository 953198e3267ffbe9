"""Sessions on images, which change them, and builds (spec user-surface §1.8, §1.13)."""

from __future__ import annotations

import os
from contextlib import contextmanager

from walt.client.errors import Failure
from walt.client.operations.archives import kind_of
from walt.client.operations.copies import download, errors_shown, upload
from walt.client.operations.transfers import send_directory
from walt.client.stream import Stream
from walt.common.transfers import DIRECTORY

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

    from walt.client.calls import Calls
    from walt.client.operations.transfers import Listener
    from walt.common.transfers import Transfer


def opened(calls: Calls, image: str, task: str) -> str:
    """Open a session on an image for a "shell" or a "transfer"; return its name."""
    return calls.call("cs.images.open", image=image, task=task)[b"session"].decode()


def close(calls: Calls, session: str) -> None:
    """End a session on an image: the next command finds the image free."""
    calls.call("cs.images.close", session=session)


@contextmanager
def closing(calls: Calls, session: str) -> Iterator[None]:
    """Close a session on an image at the end."""
    try:
        yield
    finally:
        close(calls, session)


def save(calls: Calls, session: str, image: str) -> bool:
    """Save what a session changed under a name; tell whether nodes that boot it restarted."""
    return calls.call("cs.images.save", session=session, image=image)[b"ok"] == b"True"


def warning(calls: Calls, image: str) -> str:
    """Return what a new image of this name would replace or disturb, empty for nothing."""
    return calls.call("cs.images.warning", image=image)[b"warning"].decode()


def path_kinds(calls: Calls, session: str, path: str) -> tuple[str, str]:
    """Return of which kinds a path in an image, and the directory that it is in, are."""
    kind, parent = calls.json("cs.images.path_kinds", "kinds", session=session, path=path)
    return kind, parent


def fetch(calls: Calls, session: str, transfer: Transfer, listener: Listener) -> int:
    """Copy files of an image; return the exit status of the remote side."""
    kind, _ = path_kinds(calls, session, transfer.source.path)
    with errors_shown(), closing(calls, session):
        return download("REQ_TAR_FROM_IMAGE", {"session": session}, transfer, kind, listener)


def change(
    calls: Calls, session: str, transfer: Transfer, kinds: tuple[str, str], listener: Listener
) -> bool:
    """Copy files into an image and save it; tell whether nodes that boot it restarted.

    `kinds` tell about the place in the image (`path_kinds`). Raises Failure.
    """
    with errors_shown(), closing(calls, session):
        status = upload("REQ_TAR_TO_IMAGE", {"session": session}, transfer, *kinds, listener)
        if status:
            raise Failure("The image was not changed.")
        return save(calls, session, transfer.entity)


def squash(calls: Calls, image: str) -> bool:
    """Merge all layers of an image; tell whether nodes that boot it restarted."""
    return calls.call("cs.images.squash", image=image)[b"ok"] == b"True"


def build_of_repository(image: str, url: str, subdir: str, terminal: bool) -> Stream:
    """Build an image of a git repository; return the stream of what the build prints.

    `terminal` tells whether a person reads it.
    """
    return Stream("REQ_TAR_FOR_IMAGE_BUILD", {
        "image": image, "url": url, "subdir": subdir, "terminal": terminal,
    })


def build_of_directory(
    image: str, directory: str, listener: Listener
) -> tuple[Stream, int | None]:
    """Build an image of a directory here; return the stream of what the build prints.

    Beside it the exit status, if the build ended while the directory was sent. Raises Failure.
    """
    if kind_of(directory) != DIRECTORY:
        raise Failure(f"{directory}: there is no such directory")
    stream = Stream("REQ_TAR_FOR_IMAGE_BUILD", {"image": image})
    return stream, send_directory(stream, os.path.abspath(directory), listener)
