"""Opening a session, and what the server may ask of the client meanwhile."""

from __future__ import annotations

from twisted.protocols import amp

from walt.rpc import rows
from walt.rpc.arguments import Float, Integer, Json, Names, Text, Texts
from walt.rpc.base import WaltCommand

PROTOCOL = 1  # grows when a command changes its meaning


class Hello(WaltCommand):
    """First command of a session; its shape never changes.

    The client names its product version and the user it acts for; without a
    user, the server takes the account that opened the unix socket. The walt
    command needs the same product version as the server, other programs only
    the same protocol number.
    """

    commandName = b"hello"
    side = "any"
    arguments = [
        (b"program", Text(100)),
        (b"version", Text(20)),
        (b"protocol", Integer()),
        (b"username", Text(63, optional=True)),
    ]
    response = [
        (b"version", Text(20)),
        (b"protocol", Integer()),
        (b"username", Text(63)),
    ]


class GetClientPackage(WaltCommand):
    """A piece of the wheel of this release, from `offset` on; `size` is that of the whole.

    May be called before `hello`, or after one that failed: a client of another version
    installs it. Its shape never changes.
    """

    commandName = b"cs.server.client_package"
    side = "cs"
    arguments = [(b"offset", Integer())]
    response = [(b"name", Text(200)), (b"size", Integer()), (b"data", amp.String())]


class GetTime(WaltCommand):
    """The server's clock, in epoch seconds: what relative dates refer to."""

    commandName = b"cs.server.time"
    side = "cs"
    response = [(b"time", Float())]


class CompleteWord(WaltCommand):
    """Candidates for the word being typed, for shell completion (spec server §7.5).

    `kind` is the type of the argument, as in `NODE` or `SET_OF_NODES`, `words`
    what was typed before it, `partial` its beginning. Paths of nodes and images
    are among the candidates (directories end with `/`), those of the client are
    not. Nothing to propose, or not within 3 seconds, is no error.
    """

    commandName = b"cs.server.complete"
    side = "cs"
    arguments = [(b"kind", Text(64)), (b"words", Names()), (b"partial", Text(4096))]
    response = [(b"candidates", Names())]


class StdoutWrite(WaltCommand):
    """Text for the client's standard output."""

    commandName = b"stdout.write"
    side = "client"
    arguments = [(b"text", Text(1 << 26))]
    requiresAnswer = False


class StderrWrite(WaltCommand):
    """Text for the client's standard error."""

    commandName = b"stderr.write"
    side = "client"
    arguments = [(b"text", Text(1 << 26))]
    requiresAnswer = False


class SetBusyLabel(WaltCommand):
    """What the busy indicator of a terminal shows; empty: the default label."""

    commandName = b"set_busy_label"
    side = "client"
    arguments = [(b"label", Text(1000))]
    requiresAnswer = False


class ShowProgress(WaltCommand):
    """How a long task goes: the last text on a terminal, plain lines elsewhere."""

    commandName = b"progress.show"
    side = "client"
    arguments = [(b"text", Text(1000))]
    requiresAnswer = False


class ShowWorkflows(WaltCommand):
    """Running workflows: name, step, ages in seconds, remaining steps."""

    commandName = b"cs.server.workflows"
    side = "cs"
    response = [(b"rows", Json(rows.WORKFLOWS))]


class ReachDatabase(WaltCommand):
    """How psql(1) reaches the database: variables of its environment (libpq, PG…).

    For root of the server's machine, whom the unix socket proves: a password may be there.
    """

    commandName = b"ss.database.reach"
    side = "ss"
    response = [(b"variables", Texts())]


class ShowServices(WaltCommand):
    """Supervised daemons: name, state, running, pid, restarts, last exit status, last trouble.

    States: `running`, `not answering`, `restarting in N s`, `stopped`. `trouble` is a short
    reason or None, however long ago; `trouble_time` its moment, epoch seconds.
    """

    commandName = b"cs.server.services"
    side = "cs"
    response = [(b"rows", Json(rows.SERVICES))]
