"""The questions of the first use on a machine that is not the server (spec user-surface §4.2)."""

from __future__ import annotations

from walt.client import config_file, credentials, enrolment, settings
from walt.client.commands import registries
from walt.client.errors import Failure, NotConfigured, Refused
from walt.client.session import Session
from walt.client.terminal import ask, both_terminals, yes_or_no
from walt.common.names import PLATFORM_USER, is_user_name

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable


def set_up() -> None:
    """Ask what is missing, try it, and save what works.

    Raises NotConfigured when nobody is there to be asked, Failure when nobody answers.
    """
    if not both_terminals():
        raise NotConfigured
    print("This is the first use of WalT by this account: a few questions.")
    values = dict(settings.configured())
    while True:
        server = _server()
        settings.assume({**values, "walt.server": server})
        user = _certified(server) or values.get("walt.username")
        account = None
        if user is None:
            user, account = _user()
        settings.assume({**values, "walt.server": server, "walt.username": user})
        try:
            _try(account)
        except Refused as refused:
            print(f"{refused}\n")
            if refused.code in ("DENIED", "INVALID"):
                values.pop("walt.username", None)
            continue
        except Failure as failure:
            print(f"{failure}\n")
            continue
        break
    changes: dict[str, str | None] = {"walt.server": server, "walt.username": user}
    config_file.update(changes, "This was")
    if account is not None:
        credentials.keep(registries.HUB, account)
    settings.forget_configuration()


def _answer(question: str, wrong: Callable[[str], str | None]) -> str:
    """Ask until the answer is right: `wrong` tells what is not. Raises Failure at the end."""
    while True:
        answer = ask(question)
        if answer is None:
            raise Failure("Aborted: no answer.")
        answer = answer.strip()
        if not answer:
            continue
        reason = wrong(answer)
        if reason is None:
            return answer
        print(reason)


def _server() -> str:
    """Ask for a server, and enrol there unless it is open to everybody or this machine."""

    def wrong(host: str) -> str | None:
        try:
            enrolment.directory(host.split(":", 1)[1] if host.startswith("tcp:") else host)
        except Failure as failure:
            return str(failure)
        return None

    host = _answer("IP address or host name of the WalT server: ", wrong)
    if host.startswith("tcp:") or host in settings.THIS_MACHINE or enrolment.enrolled(host):
        return host
    print(
        "A server on another machine must know this account first: on the server, somebody runs\n"
        "    walt advanced add-user NAME\nwhich prints a token. (Just press Enter if the"
        " server is open to everybody.)"
    )
    while True:
        token = ask("Token: ")
        if token is None:
            raise Failure("Aborted: no answer.")
        if not token.strip():
            return f"tcp:{host}"
        try:
            enrolment.enrol(host, token)
        except Failure as failure:
            print(failure)
        else:
            return host


def _certified(server: str) -> str | None:
    """Return the user that a certificate names."""
    if server.startswith("tcp:") or server in settings.THIS_MACHINE:
        return None
    return enrolment.user(server)


def _wrong_user(name: str) -> str | None:
    if is_user_name(name) and name != PLATFORM_USER:
        return None
    return "A user name has lower-case letters, digits and dashes."


def _user() -> tuple[str, dict[str, str] | None]:
    """Ask for a user name; return it, and the account at the Docker Hub that gives it."""
    hub = _answer(
        "Do you want to use images of your account at the Docker Hub? (y/n): ",
        lambda answer: "Answer y or n." if yes_or_no(answer) is None else None,
    )
    if not yes_or_no(hub):
        return _answer("Your user name on this platform: ", _wrong_user), None
    user = _answer("Docker Hub user name: ", lambda answer: None)
    password = ""
    while not password:
        answer = registries.ask_password("Docker Hub password: ")
        if answer is None:
            raise Failure("Aborted: no answer.")
        password = answer
    account = {"username": user, "password": password}
    if _wrong_user(user) is not None:
        return _answer("Your user name on this platform: ", _wrong_user), account
    print(f"Your user name on this platform is {user}, too.")
    return user, account


def _try(account: dict[str, str] | None) -> None:
    """Ask the server something, and log in at the hub. Raises Failure, Refused."""
    session = Session()
    session.call("cs.server.time")  # what only users may ask
    if account is not None:
        session.call(
            "cs.registries.login", label=registries.HUB, credentials={registries.HUB: account}
        )
    session.close()
