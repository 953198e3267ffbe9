"""`walt advanced`."""

from __future__ import annotations

from walt.client.commands.planning import SWITCHES as PLANS
from walt.client.commands.planning import planned, tell_plan
from walt.client.grammar import Arg, Command, Switch
from walt.client.session import Session
from walt.client.terminal import Terminal, print_block, table

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from typing import Any

CONFIG = Switch("--config", "another server.conf", metavar="FILE")
JSON = Switch("--json", "print JSON for programs")


def services(json: bool) -> None:
    """Print the daemons that the server supervises."""
    rows = Session(Terminal()).json("cs.server.services", "rows")
    if not json:
        from walt.client.formats import moment

        for row in rows:
            if row.get("trouble_time") is not None:
                row["when"] = moment(row["trouble_time"])
    _show(
        "Daemons of the server:", rows,
        ["name", "state", "pid", "restarts", "when", "trouble"], json,
    )


def workflows(json: bool) -> None:
    """Print what the server is doing."""
    rows = Session(Terminal()).json("cs.server.workflows", "rows")
    if not rows and not json:
        print("No workflow is running.")
        return
    if not json:
        rows = [
            {**row, "step-age": row["step_age"], "remaining": ", ".join(row["remaining"])}
            for row in rows
        ]
    _show("Running workflows:", rows, ["name", "step", "age", "step-age", "remaining"], json)


def _show(title: str, rows: list[dict[str, Any]], columns: list[str], json: bool) -> None:
    if json:
        from walt.client.output import print_json

        print_json(rows)
    else:
        print_block(title, table(columns, rows))


def fix_image_owner(other_user: str, yes_i_know_do_it_please: bool) -> None:
    """Take over all images of a user who left."""
    if not yes_i_know_do_it_please:
        print(
            f"This makes all images of {other_user} yours: it is meant for maintenance, when a"
            " user left or changed name.\nTo go on, type:\n"
            f"walt advanced fix-image-owner --yes-i-know-do-it-please {other_user}"
        )
        return
    from walt.common.names import short_image_name

    names = Session(Terminal()).json("cs.images.change_owner", "names", user=other_user)
    for name in names:
        print(f"Image {short_image_name(name)} is now yours.")


def update_default_images(plan: bool, json: bool) -> int:
    """Look for newer default images."""
    from walt.client.commands import registries

    if planned(plan, json):
        return tell_plan(Session(Terminal()), json, default_images=True)
    return registries.update_default_images()


def update_hub_meta(waltplatform_user: bool) -> int:
    """Make the index of an account of the Docker Hub anew."""
    from walt.client.commands import registries

    return registries.update_hub_meta(waltplatform_user)


def add_user(name: str) -> None:
    """Let a user come from other machines."""
    from walt.client.commands import access

    access.invite(name, "user")


def add_machine(name: str) -> None:
    """Let the users of another machine come in."""
    from walt.client.commands import access

    access.invite(name, "machine")


def add_ssh_key(file: str) -> None:
    """Let a public key into the nodes of the caller."""
    from walt.client.commands import ssh

    ssh.add_key(file or "")


def remove_ssh_key(key: str) -> None:
    """Take a key away again."""
    from walt.client.commands import ssh

    ssh.remove_key(key)


def show_ssh_keys(json: bool) -> None:
    """Print the keys of the caller."""
    from walt.client.commands import ssh

    ssh.show_keys(json)


def enrol(server: str, token: str) -> None:
    """Get a certificate for a server of another machine."""
    from walt.client.commands import access

    access.enrol(server, token)


def renew() -> None:
    """Get a fresh certificate."""
    from walt.client.commands import access

    access.renew()


def show_certificates(json: bool) -> None:
    """Print the certificates ever made."""
    from walt.client.commands import access

    access.show(json)


def sql(write: bool) -> int:
    """Be psql, on the database of the server."""
    from walt.client.commands import database

    return database.psql(write)


def doctor(config: str | None, json: bool) -> int:
    """Be walt-server-doctor, which comes with the server."""
    return _become("walt-server-doctor", config, *(["--json"] if json else []))


def backup(file: str, config: str | None) -> int:
    """Be walt-server-backup."""
    return _become("walt-server-backup", config, "--", file)


def restore(file: str, config: str | None) -> int:
    """Be walt-server-restore."""
    return _become("walt-server-restore", config, "--", file)


def _become(program: str, config: str | None, *words: str) -> int:
    from walt.client.commands import programs

    return programs.become(program, [*(["--config", config] if config else []), *words])


def revoke(name: str) -> None:
    """End the certificates of a user or a machine."""
    from walt.client.commands import access

    access.revoke(name)


def rotate_authority() -> None:
    """Make a new certificate authority."""
    from walt.client.commands import access

    access.rotate()


def web(logout: bool, port: str | None, json: bool) -> int:
    """Print a link to the web pages, or end the sessions there."""
    from walt.client.commands import web as pages

    if logout:
        return pages.log_out(json)
    return pages.open_pages(port, json)


def dump_bash() -> None:
    """Print the completion script of bash."""
    from walt.client.completion import script

    print(script.dump("bash"), end="")


def dump_zsh() -> None:
    """Print the completion script of zsh."""
    from walt.client.completion import script

    print(script.dump("zsh"), end="")


def dump_manual(directory: str) -> None:
    """Write manual pages into a directory of man(1), as ~/.local/share/man."""
    import os
    import shlex

    from walt.client.help.manual import manual

    found = manual()
    for name, text in found.items():
        place = os.path.join(directory, name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w", encoding="utf-8") as stream:
            stream.write(text)
    print(f"{len(found)} pages are below {directory}; try: man -M {shlex.quote(directory)} walt")


_HUB = [Switch("--waltplatform-user", "use the account of the default images")]

COMMANDS = {
    "add-machine": Command(
        add_machine, "let the users of another machine use this server", args=[Arg("name")]
    ),
    "add-ssh-key": Command(
        add_ssh_key, "let your ssh key into the nodes that you own",
        args=[Arg("file", optional=True)],
    ),
    "add-user": Command(
        add_user, "let a user of another machine use this server", args=[Arg("name")]
    ),
    "backup": Command(
        backup, "save the platform in one file while it runs, as root on the server",
        args=[Arg("file")], switches=[CONFIG],
    ),
    "doctor": Command(
        doctor, "try each step of a node's boot, as root on the server",
        switches=[CONFIG, JSON],
    ),
    "dump-bash-autocomplete": Command(dump_bash, "print the completion script of bash"),
    "dump-manual": Command(
        dump_manual, "write the manual pages (man walt) into a directory",
        args=[Arg("directory")],
    ),
    "dump-zsh-autocomplete": Command(dump_zsh, "print the completion script of zsh"),
    "enrol": Command(
        enrol, "get a certificate for a server, with the token of `add-user`",
        args=[Arg("server"), Arg("token")],
    ),
    "fix-image-owner": Command(
        fix_image_owner, "take over all images of a user",
        args=[Arg("other_user")],
        switches=[Switch("--yes-i-know-do-it-please", "really do it")],
    ),
    "remove-ssh-key": Command(
        remove_ssh_key, "take an ssh key away from your nodes", args=[Arg("key")]
    ),
    "renew": Command(renew, "get a fresh certificate before the present one expires"),
    "rescan-hub-account": Command(
        update_hub_meta, "same as `walt advanced update-hub-meta`", switches=_HUB
    ),
    "restore": Command(
        restore, "make a platform of a backup, as root on the server",
        args=[Arg("file")], switches=[CONFIG],
    ),
    "revoke": Command(
        revoke, "end the certificates of a user or a machine", args=[Arg("name")]
    ),
    "rotate-authority": Command(rotate_authority, "make a new certificate authority"),
    "services": Command(services, "print the daemons of the server", switches=[JSON]),
    "show-certificates": Command(
        show_certificates, "print the certificates of users and machines", switches=[JSON]
    ),
    "show-ssh-keys": Command(
        show_ssh_keys, "print your ssh keys", switches=[JSON]
    ),
    "sql": Command(
        sql, "look into the database of the server, as root there",
        switches=[Switch("--write", "statements may change it: stop the server before")],
    ),
    "update-default-images": Command(
        update_default_images, "download newer versions of the default images", switches=PLANS
    ),
    "update-hub-meta": Command(
        update_hub_meta, "let others find your images on the Docker Hub", switches=_HUB
    ),
    "web": Command(
        web, "print a link to the web pages: it works once, for two minutes",
        switches=[
            Switch("--logout", "end your sessions at the web pages instead", excludes=["--port"]),
            Switch("--port", "have this port of this machine lead to them", metavar="PORT"),
            JSON,
        ],
    ),
    "workflows": Command(workflows, "print what the server is doing", switches=[JSON]),
}
