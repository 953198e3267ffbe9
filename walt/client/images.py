"""`walt image shell`, `cp` and `build` (spec user-surface §1.8, §1.13)."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from walt.client import remote
from walt.client.archives import kind_of
from walt.client.copies import download, errors_shown, upload
from walt.client.errors import WRONG_WORDS, Failure, Refused
from walt.client.session import Session
from walt.client.stream import Stream
from walt.client.terminal import Terminal, ask, both_terminals, clean_up_at_signals, warned
from walt.client.transfer import send_directory
from walt.common.transfers import DIRECTORY, DOWNLOAD, parse_transfer

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

    from walt.common.transfers import Transfer

SAVE_HELP = (
    "Type the name under which this image is saved; just Enter keeps the name {name},"
    " ctrl-C discards all changes."
)


def shell(image_name: str) -> int:
    """Open a shell in an image; ask for the name to save it under."""
    session = Session(Terminal())
    name = session.call("cs.images.open", image=image_name, task="shell")[b"session"].decode()
    sys.stdout.flush()
    remote.image_shell(name)
    print(SAVE_HELP.format(name=image_name))
    status = None
    try:
        while status is None:
            status = _saved(session, name, image_name)
    except KeyboardInterrupt:
        print("\nThe changes were discarded.")
    session.call("cs.images.close", session=name)  # the next command finds the image free
    return status or 0


def _saved(session: Session, name: str, image_name: str) -> int | None:
    """Ask for a name and save; return the exit status, None to ask again.

    A standard input that ends discards the changes, and nobody decided that.
    """
    answer = ask("New image name: ")
    if answer is None:
        print("No name was given: the changes were discarded.", file=sys.stderr)
        return 1
    wanted = answer.strip() or image_name
    try:
        warning = session.call("cs.images.warning", image=wanted)[b"warning"].decode()
        if warning and wanted != image_name and f"{wanted}:latest" != image_name:
            print(f"{warning.split(' and will', 1)[0]}. Choose another name.", file=sys.stderr)
            return None
        if warning and not warned(warning):
            return None
        session.call("cs.images.save", session=name, image=wanted)
    except Refused as refused:
        if refused.code not in ("INVALID", "CONFLICT", "BUSY"):
            raise
        print(str(refused), file=sys.stderr)
        return 1 if refused.code == "CONFLICT" else None  # the session has ended
    return 0


def cp(source: str, destination: str, plan: bool = False, as_json: bool = False) -> int:
    """Copy files to or from an image; its nodes reboot when it changed.

    With `plan` nothing is copied; see `walt.client.plan`.
    """
    clean_up_at_signals()
    with errors_shown(WRONG_WORDS):
        transfer = parse_transfer("image", source, destination)
    session = Session(Terminal())
    image = transfer.entity
    if plan:
        from walt.client import plan as plans

        effect = plans.NOTHING if transfer.direction == DOWNLOAD else plans.REBOOT
        return plans.tell_plan(session, as_json, effect, image=image)
    name = session.call("cs.images.open", image=image, task="transfer")[b"session"].decode()
    if transfer.direction == DOWNLOAD:
        return _download(session, name, transfer)
    return _upload(session, name, transfer)


@contextmanager
def closing(session: Session, name: str) -> Iterator[None]:
    """Close an image session at the end, so that the next command finds the image free."""
    try:
        yield
    finally:
        session.call("cs.images.close", session=name)


def _download(session: Session, name: str, transfer: Transfer) -> int:
    kind, _ = session.json(
        "cs.images.path_kinds", "kinds", session=name, path=transfer.source.path
    )
    with errors_shown(), closing(session, name):
        status = download("REQ_TAR_FROM_IMAGE", {"session": name}, transfer, kind)
    return 1 if status else 0


def _upload(session: Session, name: str, transfer: Transfer) -> int:
    image = transfer.entity
    kinds = session.json("cs.images.path_kinds", "kinds", session=name, path=transfer.target.path)
    warning = session.call("cs.images.warning", image=image)[b"warning"].decode()
    if "reboot" in warning and not warned(warning):
        return 1
    with errors_shown(), closing(session, name):
        status = upload("REQ_TAR_TO_IMAGE", {"session": name}, transfer, *kinds)
        if status:
            raise Failure("The image was not changed.")
        ok = session.call("cs.images.save", session=name, image=image)[b"ok"]
    return 0 if ok == b"True" else 1


def build(image_name: str, url: str, directory: str, subdir: str) -> int:
    """Build an image of a git repository, or of a directory here."""
    session = Session(Terminal())
    warning = session.call("cs.images.warning", image=image_name)[b"warning"].decode()
    if warning and not warned(warning):
        return 1
    session.close()
    if url:
        stream = Stream("REQ_TAR_FOR_IMAGE_BUILD", {
            "image": image_name, "url": url, "subdir": subdir, "terminal": both_terminals(),
        })
        return remote.output_only(stream)
    if kind_of(directory) != DIRECTORY:
        raise Failure(f"{directory}: there is no such directory")
    stream = Stream("REQ_TAR_FOR_IMAGE_BUILD", {"image": image_name})
    status = send_directory(stream, os.path.abspath(directory))
    return remote.output_only(stream) if status is None else status
