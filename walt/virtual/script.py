"""Boot emulation: an interpreter of iPXE scripts, for machines without iPXE.

It knows the directives of spec node-protocols §8.4 and those that scripts of images
written for iPXE itself need: labels, `goto`, `isset`, `iseq`, `exit`. What a script
names is a file of the server, never one of this machine.
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol
from urllib.parse import unquote, urlsplit

from walt.common.errors import Invalid, LimitExceeded, Unavailable, WaltError
from walt.virtual.variables import MAX_TEXT, Variables

MAX_DEPTH = 8  # scripts chained by scripts
MAX_STEPS = 2000  # lines run in one attempt: `goto` makes loops
MAX_IMAGES = 16
MAX_PATH = 1024
MAX_SLEEP = 60.0  # seconds
MAX_SCRIPT = 64 * 1024

# What iPXE is given on the server, in this language. HTTP first: TFTP is slow.
START = """
chain http://${next-server}/boot/start.ipxe ||
chain tftp://${next-server}/start.ipxe ||
echo No boot files yet
reboot
"""


@dataclass(frozen=True)
class Location:
    """A file of the server: `scheme` is http or tftp, `path` absolute and decoded."""

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.path}"


@dataclass(frozen=True)
class Boot:
    """What a machine starts with: files of this machine and one text of arguments."""

    kernel: Path
    arguments: str
    initrds: tuple[Path, ...]


class BootFiles(Protocol):
    """Where boot files come from. Both raise WaltError when there is none."""

    async def text(self, location: Location, limit: int) -> str:
        """Return a script of at most `limit` bytes."""

    async def store(self, location: Location) -> Path:
        """Download a file; return where it is."""


class GaveUp(WaltError):
    """The script ended the attempt; the next one starts from the beginning."""


class _Booted(Exception):
    """The directive `boot` found a kernel."""


class _Jump(Exception):
    """The directive `goto`; its argument is the label."""


class _Exit(Exception):
    """The directive `exit`; its argument tells whether the script succeeded."""


def locate(text: str, base: Location | None) -> Location:
    """Return the file that a URI names, relative to the current script. Raises Invalid.

    The host of a URI is ignored: files come from the server that gave the address.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        raise Invalid(f"{text[:100]!r} is not the address of a file") from None
    path = unquote(parts.path)
    scheme = parts.scheme
    if not scheme and path.startswith("/"):
        scheme = "tftp"
    elif not scheme and base is not None:
        scheme = base.scheme
        path = posixpath.join(posixpath.dirname(base.path), path)
    if scheme not in ("http", "tftp"):
        raise Invalid(f"{text[:100]!r}: files are fetched by http: and tftp: alone")
    path = "/" + posixpath.normpath(path).lstrip("/")
    if not parts.path or not path.strip("/.") or len(path) > MAX_PATH or not path.isprintable():
        raise Invalid(f"{text[:100]!r} is not the address of a file")
    return Location(scheme, path)


def logical_lines(text: str) -> list[str]:
    """Return the lines of a script, those that end with a backslash joined to the next."""
    joined = text.replace("\r\n", "\n").replace("\\\n", " ")
    return [line.strip() for line in joined.split("\n")]


def split_operators(tokens: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the commands of a line, each behind the operator in front of it.

    Both operators have the same rank and are grouped from the left, which is what
    splitting at the right-most one gives.
    """
    found: list[tuple[str, list[str]]] = [("", [])]
    for token in tokens:
        if token in ("&&", "||"):
            found.append((token, []))
        elif token.startswith("#"):
            break
        else:
            found[-1][1].append(token)
    return found


def take_options(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the value of `--name` and the words after the options of an image directive."""
    name = ""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option, equals, value = rest.pop(0).partition("=")
        if option in ("--name", "-n", "--timeout", "-t"):
            if not equals:
                value = rest.pop(0) if rest else ""
            if option in ("--name", "-n"):
                name = value
        elif option not in ("--autofree", "-a", "--replace", "-r"):
            raise Invalid(f"unknown option {option[:40]}")
    return name, rest


@dataclass
class Interpreter:
    """One attempt to boot.

    `say` shows a line of progress; `sleep` waits for seconds.
    """

    files: BootFiles
    variables: Variables
    say: Callable[[str], None]
    sleep: Callable[[float], Awaitable[object]]
    _kernel: tuple[str, Path, str] | None = None
    _initrds: dict[str, Path] = field(default_factory=dict)
    _fetched: int = 0
    _steps: int = 0

    async def run(self) -> Boot:
        """Run the scripts of the node until one boots.

        Raises GaveUp when they end without, LimitExceeded when they do not end.
        """
        try:
            await self._script(START, None, 0)
        except _Booted:
            assert self._kernel is not None
            _, kernel, arguments = self._kernel
            return Boot(kernel, arguments, tuple(self._initrds.values()))
        raise GaveUp("the boot scripts ended without starting a kernel")

    async def _script(self, text: str, location: Location | None, depth: int) -> None:
        lines = logical_lines(text)
        number = 0
        while number < len(lines):
            line = lines[number]
            number += 1
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise GaveUp("the boot scripts run in circles")
            if not line or line.startswith((":", "#")):
                continue
            try:
                await self._line(line, location, depth)
            except _Jump as jump:
                label = f":{jump}"
                if label not in lines:
                    raise Invalid(f"goto: there is no label {str(jump)[:64]!r}") from None
                number = lines.index(label)
            except _Exit as end:
                if end.args[0]:
                    return
                raise Invalid("the script said that it failed") from None

    async def _line(self, line: str, location: Location | None, depth: int) -> None:
        if len(line) > MAX_TEXT:
            raise Invalid("a line of a boot script is too long")
        failure: WaltError | None = None
        failed = ""
        for operator, words in split_operators(line.split()):
            if (operator == "&&" and failure) or (operator == "||" and not failure):
                continue
            if failure is not None and failed not in ("isset", "iseq"):
                self.say(str(failure))  # as iPXE does: it explains what follows
            failure = None
            if words:
                try:
                    await self._command(words, location, depth)
                except GaveUp:
                    raise
                except WaltError as error:
                    failure, failed = error, words[0]
        if failure is not None:
            raise failure

    async def _command(self, words: list[str], location: Location | None, depth: int) -> None:
        name, *arguments = [self.variables.expand(word) for word in words]
        if name in ("initrd", "kernel", "chain"):
            await self._image(name, arguments, location, depth)
        elif name == "sleep":
            await self._sleep(arguments)
        else:
            simple = _SIMPLE.get(name)
            if simple is None:
                raise Invalid(f"directive {name[:40]!r} is unknown to the boot emulation")
            simple(self, arguments)

    async def _sleep(self, words: list[str]) -> None:
        try:
            seconds = float(words[0])
        except (IndexError, ValueError):
            raise Invalid("sleep: expected a number of seconds") from None
        if not 0 <= seconds <= MAX_SLEEP:
            raise Invalid(f"sleep: expected 0 to {MAX_SLEEP:.0f} seconds")
        await self.sleep(seconds)

    async def _image(
        self, directive: str, words: list[str], base: Location | None, depth: int
    ) -> None:
        name, rest = take_options(words)
        if not rest:
            raise Invalid(f"{directive}: expected the address of a file")
        where = locate(rest[0], base)
        if directive == "chain":
            if depth >= MAX_DEPTH:
                raise GaveUp("the boot scripts call each other too deeply")
            text = await self.files.text(where, MAX_SCRIPT)
            self.say(f"running {where}")
            await self._script(text, where, depth + 1)
            return
        self._fetched += 1
        if self._fetched > MAX_IMAGES:
            raise LimitExceeded("the boot scripts fetch too many files")
        path = await self.files.store(where)
        self.say(f"fetched {where}")
        name = name or posixpath.basename(where.path)
        if directive == "kernel":
            kernel_arguments = " ".join(word for word in rest[1:] if word)
            if len(kernel_arguments) > MAX_TEXT:
                raise Invalid("the arguments of the kernel are too long")
            self._kernel = name, path, kernel_arguments
        else:
            self._initrds[name] = path

    def _set(self, words: list[str]) -> None:
        if not words:
            raise Invalid("set: expected the name of a setting")
        self.variables.set(words[0], " ".join(word for word in words[1:] if word))

    def _clear(self, words: list[str]) -> None:
        self._set(words[:1])

    def _echo(self, words: list[str]) -> None:
        self.say(" ".join(words)[:MAX_TEXT])

    def _isset(self, words: list[str]) -> None:
        if not "".join(words):
            raise Invalid("isset: it is empty")

    def _iseq(self, words: list[str]) -> None:
        if len(words) != 2 or words[0] != words[1]:
            raise Invalid("iseq: they differ")

    def _imgfree(self, words: list[str]) -> None:
        if not words:
            self._kernel = None
            self._initrds.clear()
            return
        kernel_named = self._kernel is not None and self._kernel[0] == words[0]
        if kernel_named:
            self._kernel = None
        if self._initrds.pop(words[0], None) is None and not kernel_named:
            raise Invalid(f"imgfree: there is no image {words[0][:64]!r}")

    def _boot(self, words: list[str]) -> NoReturn:
        if self._kernel is None:
            raise Unavailable("boot: no kernel was fetched")
        raise _Booted

    def _goto(self, words: list[str]) -> NoReturn:
        if len(words) != 1:
            raise Invalid("goto: expected one label")
        raise _Jump(words[0])

    def _exit(self, words: list[str]) -> NoReturn:
        raise _Exit(not words or words[0] == "0")

    def _give_up(self, words: list[str]) -> NoReturn:
        raise GaveUp("the boot script asked for a new attempt")

    def _nothing(self, words: list[str]) -> None:
        """Accept what makes no sense here: the address is known already."""


_SIMPLE: dict[str, Callable[[Interpreter, list[str]], None]] = {
    "set": Interpreter._set, "clear": Interpreter._clear, "echo": Interpreter._echo,
    "isset": Interpreter._isset, "iseq": Interpreter._iseq, "imgfree": Interpreter._imgfree,
    "boot": Interpreter._boot, "goto": Interpreter._goto, "exit": Interpreter._exit,
    "reboot": Interpreter._give_up, "shell": Interpreter._give_up,
    "dhcp": Interpreter._nothing, "ifopen": Interpreter._nothing, "ifconf": Interpreter._nothing,
}


def known(
    *, model: str, mac: str, ip: str, netmask: str, gateway: str, hostname: str, server: str
) -> Variables:
    """Return the settings that scripts find (spec node-protocols §8.4)."""
    arm = model.startswith("qemu-arm-")
    return Variables({
        "product": "QEMU 6.0 ARM Virtual Machine" if arm else "Standard PC (i440FX + PIIX, 1996)",
        "manufacturer": "QEMU", "mac": mac, "ip": ip, "netmask": netmask, "gateway": gateway,
        "hostname": hostname, "name": hostname, "next-server": server, "server_ip": server,
        "dhcp-server": server, "user-class": f"walt.node.{model}",
    })
