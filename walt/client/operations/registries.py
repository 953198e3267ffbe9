"""Images and registries: clone, publish, search (spec user-surface §1.8, §4.3)."""

from __future__ import annotations

from walt.client.credentials import stored
from walt.client.errors import Refused

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from walt.client.calls import Calls

    Entry = dict[str, str]  # username and password
    Known = dict[str, Entry]  # by the label of a registry
    Ask = Callable[[str, Refused], Entry]  # label, why: credentials that were tried

HUB = "hub"


def registries(calls: Calls) -> list[dict[str, Any]]:
    """Return the registries of the server."""
    rows: list[dict[str, Any]] = calls.json("cs.registries.list", "rows")
    return rows


def retried(label: str, call: Callable[[Known], Any], ask: Ask) -> Any:
    """Do a call with the credentials of one registry; once more with those that `ask` gives."""
    known = stored([label])
    try:
        return call(known)
    except Refused as refused:
        if refused.code != "CREDENTIALS_NEEDED" and not (
            refused.code == "DENIED" and label in known
        ):
            raise
        why = refused
    return call({label: ask(label, why)})


def clone(calls: Calls, link: str, name: str, force: bool, hint: str, ask: Ask) -> bool:
    """Clone an image into the working set; tell whether it is there, and its nodes restarted.

    `hint` is what the server says when there is an image of this name, without `force`.
    """
    def call(known: Known) -> Any:
        return calls.call(
            "cs.images.clone", link=link, name=name, force=force, hint=hint, credentials=known
        )[b"ok"]

    return bool(retried(link.split(":", 1)[0], call, ask) == b"True")


def publish(calls: Calls, label: str, image: str, ask: Ask) -> str:
    """Publish an image of the working set on a registry; return its clonable link."""
    def call(known: Known) -> Any:
        return calls.call(
            "cs.images.publish", registry=label, image=image, credentials=known
        )[b"link"]

    return str(retried(label, call, ask).decode())


def search(calls: Calls, keyword: str, known: Known) -> list[dict[str, Any]]:
    """Search images everywhere, in registries with the credentials that are known."""
    rows: list[dict[str, Any]] = calls.json(
        "cs.images.search", "rows", keyword=keyword, credentials=known
    )
    return rows


def update_default_images(calls: Calls) -> bool:
    """Have the server look for newer default images; tell whether it has them."""
    labels = [row["label"] for row in registries(calls)]
    return calls.call("cs.images.update_defaults", credentials=stored(labels))[b"ok"] == b"True"


def update_hub_index(calls: Calls, platform_user: bool, ask: Ask) -> list[str]:
    """Have the server make the index of an account of the Docker Hub anew; return its images."""
    import json

    def call(known: Known) -> Any:
        return calls.call(
            "cs.images.update_hub_index", platform_user=platform_user, credentials=known
        )[b"names"]

    names: list[str] = json.loads(retried(HUB, call, ask))
    return names
