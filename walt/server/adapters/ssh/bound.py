"""Commands on nodes that end with the connection they came by."""

from __future__ import annotations

from shlex import quote

# sshd gives each command a process group of its own, dropbear each connection; both end with
# the connection, and leave the command alone, unless it has a terminal. So somebody looks, as
# long as the command runs, whether they are still there. What it has put into the background
# and left may stay.
_BOUND = (
    "parent=$PPID; ("
    'trap "" HUP TERM; while kill -0 $parent && kill -0 $$; do sleep 1; done; '
    "kill -TERM 0; sleep 2; kill -KILL 0"
    ') < /dev/null > /dev/null 2>&1 & watcher=$!; sh -c "$1"; status=$?; '
    "kill -KILL $watcher 2> /dev/null; exit $status"
)


def bound(command: str) -> str:
    """Return what a login shell must run so that `command` ends with its connection."""
    return f"exec sh -c {quote(_BOUND)} walt {quote(command)}"


# A command that a signal ends, as that of ctrl-C, has no status of its own: ssh would answer 255,
# as when it fails itself. The shell outlives the signal, and answers 128 and its number.
_ON_TERMINAL = 'trap : INT QUIT; (trap - INT QUIT; exec sh -c "$1"); exit $?'


def on_terminal(command: str) -> str:
    """Return what a login shell must run so that ssh answers the status of `command`.

    It has a terminal, so it ends with its connection by itself.
    """
    return f"exec sh -c {quote(_ON_TERMINAL)} walt {quote(command)}"
