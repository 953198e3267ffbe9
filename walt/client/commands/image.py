"""`walt image`."""

from __future__ import annotations

from walt.client.commands.planning import SWITCHES as PLANS
from walt.client.commands.planning import planned, tell_plan
from walt.client.errors import WRONG_WORDS, Failure
from walt.client.grammar import Arg, Command, Switch
from walt.client.session import Session
from walt.client.terminal import Terminal, print_block, table, warned

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

OWN = ["name", "in-use", "created", "size", "compatibility"]
OTHERS = ["user", "name", "created", "size", "clonable-link"]
DEFAULTS = ["name", "created", "size", "clonable-link"]


def show(all: bool, names_only: bool, refresh: bool, json: bool) -> None:
    """Print the images of the caller, or all."""
    if names_only and all:
        raise Failure("--names-only and --all cannot be used together")
    tables = Session(Terminal()).json("cs.images.show", "tables", all=all, refresh=refresh)
    hidden = tables.pop("hidden")
    tables.pop("total")
    if json:
        from walt.client.output import print_json

        print_json(tables)
    elif names_only:
        for row in tables["own"]:
            print(row["name"])
    else:
        _show_tables(tables, all, hidden)


def _show_tables(tables: dict[str, Any], show_all: bool, hidden: int) -> None:
    from walt.client.formats import cells

    tables = {name: [cells(row) for row in rows] for name, rows in tables.items()}
    if tables["own"]:
        print_block("Your images:", table(OWN, tables["own"]))
    elif not show_all:
        print("\nYou have no image.")
    if tables["others"]:
        print_block("Images of other users:", table(OTHERS, tables["others"]))
    if tables["default"]:
        print_block("Default images:", table(DEFAULTS, tables["default"]))
    others = tables["others"] or tables["default"]
    if not show_all and hidden:
        print("Other images are available; use `walt image show --all` to see them.")
    elif not (tables["own"] or others or hidden):
        print("This platform has no image yet.")
    if show_all:
        if others:
            print("Get a copy of one of them: walt image clone <clonable-link>")
        print("Look for images on registries: walt image search")


def shell(image_name: str, plan: bool, json: bool) -> int:
    """Open a shell in an image, then ask for the name to save it under."""
    from walt.client.commands import image_sessions

    if planned(plan, json):
        return tell_plan(Session(Terminal()), json, image=image_name)
    return image_sessions.shell(image_name)


def build(
    image_name: str, from_url: str, from_dir: str, sub_dir: str, plan: bool, json: bool
) -> int:
    """Build an image from a Dockerfile."""
    from walt.client.commands import image_sessions

    if not from_url and not from_dir:
        raise Failure(
            "Say where the Dockerfile is: --from-dir DIRECTORY or --from-url GIT_URL.",
            WRONG_WORDS,
        )
    if sub_dir and not from_url:
        raise Failure("--sub-dir goes with --from-url only.", WRONG_WORDS)
    if planned(plan, json):
        return tell_plan(Session(Terminal()), json, image=image_name)
    return image_sessions.build(image_name, from_url, from_dir, sub_dir.strip("/"))


def cp(src: str, dst: str, plan: bool, json: bool) -> int:
    """Copy files to or from an image."""
    from walt.client.commands import image_sessions

    return image_sessions.cp(src, dst, planned(plan, json), json)


def duplicate(image_name: str, new_image_name: str) -> None:
    """Give an image a second name."""
    Session(Terminal()).call("cs.images.duplicate", image=image_name, new_name=new_image_name)


def rename(image_name: str, new_image_name: str) -> None:
    """Give an image another name."""
    Session(Terminal()).call("cs.images.rename", image=image_name, new_name=new_image_name)


def remove(image_name: str) -> None:
    """Remove an image that no node uses."""
    Session(Terminal()).call("cs.images.remove", image=image_name)


def squash(image_name: str, plan: bool, json: bool) -> int:
    """Merge all layers of an image."""
    from walt.client.operations import images

    if planned(plan, json):
        return tell_plan(Session(Terminal()), json, image=image_name)
    session = Session(Terminal("Squashing"))
    warning = images.warning(session, image_name)
    if "reboot" in warning and not warned(warning):
        return 1
    return 0 if images.squash(session, image_name) else 1


def clone(
    clonable_image_link: str, image_name: str, force: bool, plan: bool, json: bool
) -> int:
    """Get an image from somewhere else."""
    from walt.client.commands import registries

    if planned(plan, json):
        name = image_name or clonable_image_link.rpartition("/")[2]
        return tell_plan(Session(Terminal()), json, image=name)

    return registries.clone(clonable_image_link, image_name or "", force)


def publish(image_name: str, registry: str) -> int:
    """Put an image on a registry."""
    from walt.client.commands import registries

    return registries.publish(registry, image_name)


def search(keyword: str, json: bool) -> int:
    """Search images everywhere."""
    from walt.client.commands import registries

    return registries.search(keyword or "", json)


IMAGE = Arg("image_name")
NEW = Arg("new_image_name")

COMMANDS = {
    "show": Command(
        show, "print your images",
        switches=[
            Switch("--all", "print images of other users and default images, too"),
            Switch("--names-only", "print only names, one per line"),
            Switch("--refresh", "read the image store again first"),
            Switch("--json", "print JSON for programs"),
        ],
    ),
    "search": Command(
        search, "search for images of other users and in registries",
        args=[Arg("keyword", optional=True)],
        switches=[Switch("--json", "print JSON for programs")],
    ),
    "clone": Command(
        clone, "get an image from another user or from a registry",
        args=[Arg("clonable_image_link"), Arg("image_name", optional=True)],
        switches=[Switch("--force", "replace an image of that name"), *PLANS],
    ),
    "shell": Command(
        shell, "open a shell in an image, and save what changed", args=[IMAGE], switches=PLANS
    ),
    "build": Command(
        build, "build an image from a Dockerfile", args=[IMAGE],
        usage=[
            "walt image build --from-url GIT_URL [--sub-dir PATH] image_name",
            "walt image build --from-dir DIRECTORY image_name",
        ],
        switches=[
            Switch("--from-url", "clone this git repository", metavar="GIT_URL", default=""),
            Switch("--from-dir", "send this directory", metavar="DIRECTORY", default=""),
            Switch("--sub-dir", "where it is in the repository", metavar="PATH", default=""),
            *PLANS,
        ],
    ),
    "cp": Command(
        cp, "copy files to or from an image", args=[Arg("src"), Arg("dst")],
        usage=[
            "walt image cp <local-path> <image>:<path>",
            "walt image cp <image>:<path> <local-path>",
        ],
        switches=PLANS,
    ),
    "duplicate": Command(duplicate, "give an image a second name", args=[IMAGE, NEW]),
    "remove": Command(remove, "remove an image", args=[IMAGE]),
    "rename": Command(rename, "rename an image", args=[IMAGE, NEW]),
    "publish": Command(
        publish, "put an image on a registry", args=[IMAGE],
        switches=[
            Switch("--registry", "which registry", metavar="REGISTRY", default="auto")
        ],
    ),
    "squash": Command(
        squash, "merge all layers of an image into one", args=[IMAGE], switches=PLANS
    ),
}
