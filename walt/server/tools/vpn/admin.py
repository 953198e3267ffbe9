"""`walt-vpn-admin`: the keys of VPN nodes, and entry points (spec user-surface §1.17).

    walt-vpn-admin                       a menu, on a terminal
    walt-vpn-admin keys [--json]         every key, with its board
    walt-vpn-admin revoke CERTID         refuse a key from now on
    walt-vpn-admin entry-point           write ssh-ep-setup.sh here

For root, on the server. Status: 0, 1 when something fails, 2 for wrong words.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from walt.client.errors import Failure
from walt.client.session import Session
from walt.common.errors import ConfigurationError, in_words
from walt.server.config.load import DEFAULT_FILE, load
from walt.server.tools.vpn.entry_point import SCRIPT, script
from walt.server.tools.vpn.menu import Entry, Menu, Quit, say, wait

NAME = "walt-vpn-admin"
UNKNOWN, ALREADY = "Sorry, this key does not exist.", "This key is already revoked."


class Admin:
    """What can be done in a session; `place` is where files are written."""

    def __init__(self, session: Session, place: Path) -> None:
        self._session, self._place = session, place

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each key."""
        rows: list[dict[str, Any]] = self._session.json("ss.vpn.keys", "rows")
        return rows

    def revoke(self, certid: str) -> None:
        """Refuse a key. Raises Failure."""
        self._session.call("ss.vpn.revoke", certid=certid)

    def write_script(self) -> Path:
        """Write the script for an entry point; return its path. Raises Failure, OSError."""
        settings = self._session.json("ss.vpn.settings", "settings")
        if not settings["enabled"]:
            raise Failure("the VPN is not configured: see `vpn` in server.conf")
        path = self._place / SCRIPT
        path.write_text(script(settings))
        path.chmod(0o755)
        return path


def listed(rows: Sequence[dict[str, Any]], *, revoked: bool) -> list[str]:
    """Return lines for people: keys that are revoked, or not; those without a board apart."""
    found = [row for row in rows if row["revoked"] is revoked]
    present = [row for row in found if not row["forgotten_device"]]
    gone = [row for row in found if row["forgotten_device"]]
    lines = [f"{row['certid']}: used by {row['device_label']}" for row in present]
    if gone:
        lines += ["", "Keys of forgotten devices"
                  + (":" if revoked else "; consider revoking them:")]
        lines += [f"{row['certid']}: used by {row['device_label']}" for row in gone]
    return lines or ["none"]


class Dialogue:
    """The entries of the menu."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def entries(self) -> list[Entry]:
        """Return the entries that make sense now."""
        rows = self._admin.rows()
        valid = sum(1 for row in rows if not row["revoked"])
        found: list[Entry] = [
            ("Generate an SSH entry point setup script", self._script),
            (f"List valid authentication keys ({valid})", lambda: self._list(False)),
            (f"List revoked authentication keys ({len(rows) - valid})", lambda: self._list(True)),
        ]
        if valid:
            found.append(("Revoke an authentication key", self._revoke))
        return [*found, ("Quit", self._quit)]

    def _script(self) -> None:
        try:
            say(f"{self._admin.write_script()} is written: run it as root on the entry point.\n")
        except (Failure, OSError) as error:
            say(f"{in_words(error)}\n")
        wait()

    def _list(self, revoked: bool) -> None:
        say("\n".join(listed(self._admin.rows(), revoked=revoked)) + "\n")
        wait()

    def _revoke(self) -> None:
        while True:
            say("Certificate to revoke (ctrl-C: none): ")
            line = sys.stdin.readline()
            if not line:
                raise Quit
            certid = line.strip()
            if not certid:
                continue
            try:
                self._admin.revoke(certid)
            except Failure as error:
                known = {row["certid"]: row for row in self._admin.rows()}
                if certid not in known:
                    say(f"{UNKNOWN}\n")
                    continue
                say(f"{ALREADY if known[certid]['revoked'] else error}\n")
            else:
                say("Done.\n")
            wait()
            return

    def _quit(self) -> None:
        raise Quit


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=NAME, description="Keys of VPN nodes, and entry points.")
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, metavar="FILE")
    words = parser.add_subparsers(dest="what")
    shown = words.add_parser("keys", help="list every key")
    shown.add_argument("--json", action="store_true", help="print JSON for programs")
    words.add_parser("revoke", help="refuse a key from now on").add_argument("certid")
    words.add_parser("entry-point", help=f"write {SCRIPT} in this directory")
    return parser


def _run(options: argparse.Namespace, admin: Admin) -> None:
    if options.what == "keys":
        rows = admin.rows()
        if options.json:
            print(json.dumps(rows, indent=1))
        else:
            for title, revoked in (("Valid keys:", False), ("Revoked keys:", True)):
                print("\n".join((title, *listed(rows, revoked=revoked))))
    elif options.what == "revoke":
        admin.revoke(options.certid)
        print("Done.")
    elif options.what == "entry-point":
        print(admin.write_script())
    elif not sys.stdin.isatty():
        raise Failure(f"the menu needs a terminal; see: {NAME} --help")
    else:
        Menu("Administration of the VPN", Dialogue(admin).entries).run()


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(words)
    try:
        if os.geteuid() != 0:
            raise Failure("this must be run by root, on the server")
        os.environ["WALT_SERVER"] = f"unix:{load(options.config).paths.rpc_socket}"
        _run(options, Admin(Session(), Path.cwd()))
    except KeyboardInterrupt:
        return 130
    except (Failure, ConfigurationError, OSError) as error:
        print(f"{NAME}: {in_words(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
