"""What commands about registries ask and print (spec user-surface §1.8, §4.3)."""

from __future__ import annotations

import shlex
import sys

from walt.client.credentials import keep, stored
from walt.client.errors import Failure, Refused
from walt.client.formats import cells
from walt.client.operations import registries
from walt.client.operations.registries import HUB
from walt.client.output import print_json
from walt.client.session import Session
from walt.client.terminal import Terminal, ask, print_block, table
from walt.common.controls import visible

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

    from walt.client.operations.registries import Ask

COLUMNS = ["User", "Image name", "Location", "Compatibility", "Clonable link"]


def prompt(session: Session, label: str) -> dict[str, str]:
    """Ask for credentials until the registry accepts them; keep them in the file."""
    kind = "password" if label == HUB else "password (or token)"
    print(f"Registry {label} needs a user name and a {kind}.")
    while True:
        user = ask(f"{label} user name: ")
        password = ask_password(f"{label} {kind}: ") if user else None
        if user is None or (user and password is None):
            raise Failure("no credentials were given")
        if not user or not password:
            continue
        entry = {"username": user, "password": password}
        try:
            session.call_as(
                "Authenticating to the registry", "cs.registries.login", label=label,
                credentials={label: entry},
            )
        except Refused as refused:
            if refused.code not in ("DENIED", "INVALID"):
                raise
            print(str(refused), file=sys.stderr)
            continue
        keep(label, entry)
        return entry


def ask_password(question: str) -> str | None:
    """Ask without showing the answer; None at the end of input."""
    if not sys.stdin.isatty():
        return ask(question)
    import getpass

    try:
        return getpass.getpass(visible(question))
    except EOFError:
        return None


def asking(session: Session) -> Ask:
    """Return what says why a registry refused, and asks for credentials."""

    def asked(label: str, why: Refused) -> dict[str, str]:
        print(str(why), file=sys.stderr)
        return prompt(session, label)

    return asked


def clone(link: str, name: str, force: bool) -> int:
    """Clone an image into the working set."""
    session = Session(Terminal("Validating / Cloning"))
    words = ["walt", "image", "clone", "--force", link, *([name] if name else [])]
    hint = f"Replace it with: {shlex.join(words)}"
    return 0 if registries.clone(session, link, name, force, hint, asking(session)) else 1


def publish(registry: str, image: str) -> int:
    """Publish an image of the working set; print its clonable link."""
    session = Session(Terminal("Validating / Publishing"))
    label = _chosen(registry, registries.registries(session))
    if label is None:
        return 1
    link = registries.publish(session, label, image, asking(session))
    print(f"The image was published. Others can get it with: walt image clone {link}")
    return 0


def _chosen(registry: str, rows: list[dict[str, Any]]) -> str | None:
    labels = [row["label"] for row in rows]
    if registry in labels:
        return registry
    if registry == "auto" and len(rows) == 1:
        return str(labels[0])
    if not rows:
        print("This server has no registry to publish to.", file=sys.stderr)
        return None
    if registry != "auto":
        print(f"There is no registry {registry!r}.", file=sys.stderr)
    else:
        print("Choose a registry: --registry REGISTRY.", file=sys.stderr)
    found = [{"Registry": row["label"], "Description": row["description"]} for row in rows]
    print_block("Registries:", table(["Registry", "Description"], found))
    return None


def search(keyword: str, json: bool) -> int:
    """Search images everywhere."""
    session = Session(Terminal("Searching"))
    rows = registries.registries(session)
    known = stored(row["label"] for row in rows)
    for row in rows:
        if row["reading"] and row["label"] not in known and sys.stdin.isatty():
            try:
                known[row["label"]] = prompt(session, row["label"])
            except Failure:  # the server tells that it is passed over
                continue
    found = registries.search(session, keyword, known)
    if json:
        print_json([{key: row[key] for key in row if key != "link"} for row in found])
    elif not found:
        print("No image was found.", file=sys.stderr)
    else:
        names = ["user", "name", "location", "compatibility", "clonable-link"]
        shown = [
            {title: row[name] for title, name in zip(COLUMNS, names)}
            for row in (cells(image) for image in found)
        ]
        print_block("Images that can be cloned:", table(COLUMNS, shown))
    return 0


def update_default_images() -> int:
    """Have the server look for newer default images."""
    return 0 if registries.update_default_images(Session(Terminal())) else 1


def update_hub_meta(platform_user: bool) -> int:
    """Have the server make the index of an account of the Docker Hub anew."""
    session = Session(Terminal())
    names = registries.update_hub_index(session, platform_user, asking(session))
    for name in names:
        print(name)
    print(f"{len(names)} image{'' if len(names) == 1 else 's'} can be found on the Docker Hub.")
    return 0
