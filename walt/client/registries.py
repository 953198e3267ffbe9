"""Registries: credentials, clone, publish, search (spec user-surface §1.8, §4.3)."""

from __future__ import annotations

import shlex
import sys

from walt.client.credentials import keep, stored
from walt.client.errors import Failure, Refused
from walt.client.output import cells, print_json
from walt.client.session import Session
from walt.client.terminal import Terminal, ask, print_block, table
from walt.common.controls import visible

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Known = dict[str, dict[str, str]]

HUB = "hub"
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


def retried(session: Session, label: str, call: Callable[[Known], Any]) -> Any:
    """Do a call with the credentials of one registry; prompt and retry once."""
    known = stored([label])
    try:
        return call(known)
    except Refused as refused:
        if refused.code != "CREDENTIALS_NEEDED" and not (
            refused.code == "DENIED" and label in known
        ):
            raise
        print(str(refused), file=sys.stderr)
    return call({label: prompt(session, label)})


def clone(link: str, name: str, force: bool) -> int:
    """Clone an image into the working set."""
    session = Session(Terminal("Validating / Cloning"))
    words = ["walt", "image", "clone", "--force", link, *([name] if name else [])]
    hint = f"Replace it with: {shlex.join(words)}"

    def call(known: Known) -> Any:
        return session.call(
            "cs.images.clone", link=link, name=name, force=force, hint=hint, credentials=known
        )[b"ok"]

    return 0 if retried(session, link.split(":", 1)[0], call) == b"True" else 1


def publish(registry: str, image: str) -> int:
    """Publish an image of the working set; print its clonable link."""
    session = Session(Terminal("Validating / Publishing"))
    rows = session.json("cs.registries.list", "rows")
    label = _chosen(registry, rows)
    if label is None:
        return 1

    def call(known: Known) -> Any:
        return session.call(
            "cs.images.publish", registry=label, image=image, credentials=known
        )[b"link"]

    link = retried(session, label, call).decode()
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
    rows = session.json("cs.registries.list", "rows")
    known = stored(row["label"] for row in rows)
    for row in rows:
        if row["reading"] and row["label"] not in known and sys.stdin.isatty():
            try:
                known[row["label"]] = prompt(session, row["label"])
            except Failure:  # the server tells that it is passed over
                continue
    found = session.json("cs.images.search", "rows", keyword=keyword, credentials=known)
    if json:
        print_json([{key: row[key] for key in row if key != "link"} for row in found])
    elif not found:
        print("No image was found.", file=sys.stderr)
    else:
        names = ["user", "name", "location", "compatibility", "clonable-link"]
        shown = [
            {title: row[name] for title, name in zip(COLUMNS, names)}
            for row in (cells(one) for one in found)
        ]
        print_block("Images that can be cloned:", table(COLUMNS, shown))
    return 0


def update_default_images() -> int:
    """Have the server look for newer default images."""
    session = Session(Terminal())
    labels = [row["label"] for row in session.json("cs.registries.list", "rows")]
    ok = session.call("cs.images.update_defaults", credentials=stored(labels))[b"ok"]
    return 0 if ok == b"True" else 1


def update_hub_meta(platform_user: bool) -> int:
    """Have the server make the index of an account of the Docker Hub anew."""
    import json

    session = Session(Terminal())

    def call(known: Known) -> Any:
        return session.call(
            "cs.images.update_hub_index", platform_user=platform_user, credentials=known
        )[b"names"]

    names = json.loads(retried(session, HUB, call))
    for name in names:
        print(name)
    print(f"{len(names)} image{'' if len(names) == 1 else 's'} can be found on the Docker Hub.")
    return 0
