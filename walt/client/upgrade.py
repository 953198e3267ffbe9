"""A server of another version: install what it runs, and start again (spec user-surface §4.4)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile

from walt.client.errors import Failure, Refused
from walt.client.terminal import both_terminals, confirm

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from walt.client.connection import Connection

DONE = "WALT_UPGRADED"  # tells the command that is started again not to begin anew
MAX_SIZE = 64 << 20
_NAME = re.compile(r"walt-[0-9]+[0-9.]*-py3-none-any\.whl")


def offer(connection: Connection, refused: Refused) -> None:
    """Install the version of the server, if that is wanted, and run the command with it.

    Does not return: raises `refused` itself when nobody is there to be asked, Failure when
    the installation does not work.
    """
    if os.environ.get(DONE) or not both_terminals():
        raise refused
    print(f"{refused}.")
    if not confirm("Install the server's version here, and go on with it?"):
        raise Failure("")
    path = fetched(connection)
    pip = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--force-reinstall", path,
    ]
    if subprocess.run(pip, check=False).returncode != 0:
        raise Failure(f"pip could not install the version of the server; it is in {path}")
    os.unlink(path)
    os.rmdir(os.path.dirname(path))
    os.environ[DONE] = "1"
    argv = [sys.executable, "-m", "walt.client.main", *sys.argv[1:]]
    os.execv(sys.executable, argv)  # noqa: S606 (no shell is wanted)


def fetched(connection: Connection) -> str:
    """Get the wheel of the server's release; return its path in a directory of its own."""
    data = b""
    size = 1
    name = ""
    while len(data) < size:
        answer = connection.call("cs.server.client_package", offset=len(data))
        name, size = answer[b"name"].decode(), int(answer[b"size"])
        if not _NAME.fullmatch(name) or size > MAX_SIZE or not answer[b"data"]:
            raise Failure("communication issue: this is not a package of WalT")
        data += answer[b"data"]
    path = os.path.join(tempfile.mkdtemp(prefix="walt-"), name)
    with open(path, "wb") as stream:
        stream.write(data)
    return path
