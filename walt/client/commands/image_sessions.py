"""What `walt image shell`, `cp` and `build` ask and print (spec user-surface §1.8, §1.13)."""

from __future__ import annotations

import sys

from walt.client import remote
from walt.client.commands.progress import Progress
from walt.client.errors import WRONG_WORDS, Refused
from walt.client.operations import images
from walt.client.operations.copies import errors_shown
from walt.client.session import Session
from walt.client.terminal import Terminal, ask, both_terminals, clean_up_at_signals, warned
from walt.common.transfers import DOWNLOAD, parse_transfer

SAVE_HELP = (
    "Type the name under which this image is saved; just Enter keeps the name {name},"
    " ctrl-C discards all changes."
)


def shell(image_name: str) -> int:
    """Open a shell in an image; ask for the name to save it under."""
    session = Session(Terminal())
    name = images.opened(session, image_name, "shell")
    sys.stdout.flush()
    remote.image_shell(name)
    print(SAVE_HELP.format(name=image_name))
    status = None
    try:
        while status is None:
            status = _saved(session, name, image_name)
    except KeyboardInterrupt:
        print("\nThe changes were discarded.")
    images.close(session, name)  # the next command finds the image free
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
        warning = images.warning(session, wanted)
        if warning and wanted != image_name and f"{wanted}:latest" != image_name:
            print(f"{warning.split(' and will', 1)[0]}. Choose another name.", file=sys.stderr)
            return None
        if warning and not warned(warning):
            return None
        images.save(session, name, wanted)
    except Refused as refused:
        if refused.code not in ("INVALID", "CONFLICT", "BUSY"):
            raise
        print(str(refused), file=sys.stderr)
        return 1 if refused.code == "CONFLICT" else None  # the session has ended
    return 0


def cp(source: str, destination: str, plan: bool = False, as_json: bool = False) -> int:
    """Copy files to or from an image; its nodes reboot when it changed.

    With `plan` nothing is copied; see `walt.client.commands.planning`.
    """
    clean_up_at_signals()
    with errors_shown(WRONG_WORDS):
        transfer = parse_transfer("image", source, destination)
    session = Session(Terminal())
    image = transfer.entity
    if plan:
        from walt.client.commands import planning

        effect = planning.NOTHING if transfer.direction == DOWNLOAD else planning.REBOOT
        return planning.tell_plan(session, as_json, effect, image=image)
    name = images.opened(session, image, "transfer")
    if transfer.direction == DOWNLOAD:
        return 1 if images.fetch(session, name, transfer, Progress()) else 0
    kinds = images.path_kinds(session, name, transfer.target.path)
    warning = images.warning(session, image)
    if "reboot" in warning and not warned(warning):
        return 1
    return 0 if images.change(session, name, transfer, kinds, Progress()) else 1


def build(image_name: str, url: str, directory: str, subdir: str) -> int:
    """Build an image of a git repository, or of a directory here."""
    session = Session(Terminal())
    warning = images.warning(session, image_name)
    if warning and not warned(warning):
        return 1
    session.close()
    if url:
        return remote.output_only(
            images.build_of_repository(image_name, url, subdir, both_terminals())
        )
    stream, status = images.build_of_directory(image_name, directory, Progress())
    return remote.output_only(stream) if status is None else status
