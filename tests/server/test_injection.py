"""No name that somebody gives becomes an option, a command or a line of a configuration.

Each value is refused by the rules of the domain, or reaches a program as (a part of)
one argument that cannot be an option. A shell is met on nodes and in containers
only, where the value is quoted whole.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.fakes.devices import FakeDeviceStore
from tests.fakes.hostile import CANARY, HOSTILE
from tests.fakes.processes import ProcessClock
from tests.server.domain.images.test_catalog import Asking
from tests.server.streams.platform import CLIENT, Platform
from walt.common import frames, names
from walt.common.errors import CommandFailed, Invalid, WaltError
from walt.common.machines import MachineConfig
from walt.common.qemu import command as qemu_command
from walt.common.transfers import Place
from walt.rpc import arguments
from walt.server.adapters.network.taps import Taps
from walt.server.adapters.podman.builder import PodmanBuilder
from walt.server.adapters.podman.containers import Engine, PodmanContainers
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.registry import Location, SkopeoRegistry
from walt.server.adapters.podman.repositories import Repositories
from walt.server.adapters.podman.skopeo import Skopeo
from walt.server.adapters.podman.store import PodmanStore
from walt.server.adapters.podman.surroundings import Surroundings
from walt.server.adapters.qemu.command import script as ipxe_script
from walt.server.adapters.ssh.bound import bound
from walt.server.adapters.ssh.options import git_command, node_options
from walt.server.adapters.ssh.sessions import SshSessions
from walt.server.adapters.ssh.shell import SshNodeShell
from walt.server.domain.access.codes import EnrolmentCodes
from walt.server.domain.access.enrolment import Access
from walt.server.domain.devices import naming
from walt.server.domain.devices import settings as device_settings
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.images import links
from walt.server.domain.images.model import ContainerOptions, RegistryInfo, StoredImage
from walt.server.domain.network.firewall import is_interface_name
from walt.server.domain.transfers import (
    list_script,
    probe_script,
    receive_script,
    send_script,
)
from walt.server.runtime.process import Launcher, ProcessResult, ProcessRunner

PLAIN = "benign"
MAC, IP = "52:54:00:00:00:01", "192.168.1.2"
IMAGE_ID = "0123456789abcdef" * 4
WHOLE = re.compile(r"[A-Za-z0-9_.:@-]+")
NETWORK = IPv4Network("192.168.1.0/24")
SHELLS = {"sh", "bash", "/bin/sh", "/bin/bash"}
texts = st.text(max_size=60) | st.sampled_from(HOSTILE) | st.from_regex(r"[-a-z:./@\n]{1,20}")


async def succeed_with_nothing(repositories: Repositories) -> list[Any]:
    """Pretend that this machine has no address."""
    return []


class Recorder(ProcessRunner):
    """Runs nothing and keeps the argument vectors, and what goes to standard inputs."""

    def __init__(self) -> None:
        super().__init__(ProcessClock())
        self.ran: list[list[str]] = []
        self.inputs: list[str] = []
        self.answer = b"[]"

    async def run(self, argv: Sequence[str], **options: Any) -> ProcessResult:  # type: ignore[override]
        """Pretend that the program succeeded."""
        self.ran.append(list(argv))
        self.inputs.append(options.get("stdin", b"").decode())
        return ProcessResult(tuple(argv), 0, self.answer, b"")


class _Pipes(ProcessClock):
    def spawnProcess(self, *args: Any, **options: Any) -> Any:
        process: Any = super().spawnProcess(*args, **options)
        process.pipes = {}
        return process


class RulesTests(SynchronousTestCase):
    """What the domain refuses: these names never get any further."""

    def refused(self, parse: Callable[[str], Any], value: str) -> None:
        try:
            parse(value)
        except Invalid:
            return
        self.fail(f"{value[:80]!r} was accepted")

    def test_names(self) -> None:
        """What is a name has letters, digits and few signs, and is no option."""
        rules = (
            names.is_device_name, names.is_user_name, names.is_image_name, names.is_mac,
            names.is_model, names.is_checkpoint_name, is_interface_name,
        )

        @given(texts)
        def check(text: str) -> None:
            for rule in rules:
                if rule(text):
                    self.assertTrue(WHOLE.fullmatch(text), text)
                    self.assertFalse(text.startswith("-"), text)
                    self.assertLessEqual(len(text), 200)

        check()
        for value in HOSTILE:
            for rule in rules[:-1]:
                self.assertFalse(rule(value), f"{value[:80]!r} {rule.__name__}")

    def test_values(self) -> None:
        """Links, settings, terminals, addresses: every hostile text is Invalid."""
        registry = DeviceRegistry(FakeDeviceStore(), NETWORK)
        authority = Access(
            None, None, EnrolmentCodes(lambda: 0.0, bytes), lambda: 0.0, print, succeed, succeed,
        )
        parsers: list[Callable[[str], Any]] = [
            registry.check_new_name,
            lambda text: authority.invite(text, "user"),
            lambda text: links.parse_link(text, ["walt", "hub"]),
            lambda text: links.parse_link(f"hub:{text}/name", ["hub"]),
            lambda text: links.parse_link(f"hub:user/{text}", ["hub"]),
            lambda text: links.parse_link(f"hub:user/name:{text}", ["hub"]),
            lambda text: links.parse_link(f"{text}:user/name", ["hub"]),
            lambda text: arguments.IPAddress().fromString(text.encode(errors="surrogatepass")),
            lambda text: arguments.Mac().fromString(text.encode(errors="surrogatepass")),
        ]
        for name in device_settings.SETTINGS:
            # These go into packets, and reach no program.
            if name not in ("snmp.community", "snmp.user", *device_settings.SECRETS):
                parsers.append(lambda text, name=name: device_settings.parse_words(  # type: ignore[misc]
                    [f"{name}={text}"]
                ))
        for value in HOSTILE:
            for parse in parsers:
                self.refused(parse, value)
            for words in (f"disks=1G[template={value}]", f"networks=walt-net,{value}"):
                self.refused(lambda text: device_settings.parse_words([text]), words)

    def test_announced(self) -> None:
        """What a device announces becomes a valid name, or none; models are checked."""

        @given(texts, texts)
        def check(name: str, model: str) -> None:
            chosen = naming.choose_name(name, "unknown", MAC, lambda one: False)
            self.assertTrue(names.is_device_name(chosen), chosen)
            guess = naming.guess_type(f"walt.node.{model}", "", MAC)
            self.assertTrue(guess.model is None or names.is_model(guess.model))

        check()

    def test_labels(self) -> None:
        """Names that an image carries: its models, what its copies are called."""
        for value in HOSTILE:
            image = StoredImage("ann/x:latest", IMAGE_ID, labels={
                "walt.node.models": value, "walt.image.preferred-name": value,
            })
            self.assertTrue(all(names.is_model(one) for one in image.models))
            self.assertIsNone(image.preferred_name)


class ArgumentsTests(SynchronousTestCase):
    """Values that may reach a program: the vector differs in one place, which is no option."""

    def harmless(self, make: Callable[[str], list[str]], *, over: Sequence[str] = HOSTILE) -> None:
        """`make` refuses a value, or puts it whole where the harmless one was."""
        model = make(PLAIN)
        self.assertTrue(any(PLAIN in word for word in model), model)
        for value in over:
            try:
                argv = make(value)
            except WaltError:
                continue
            self.assertEqual(argv, [word.replace(PLAIN, value) for word in model])
            for number, (word, before) in enumerate(zip(argv, model, strict=True)):
                if PLAIN in before and word.startswith("-") and "--" not in argv[:number]:
                    self.assertTrue(before.startswith("-"), f"{value!r} is an option in {argv}")
            self.assertFalse(SHELLS & set(argv[:argv.index("--")] if "--" in argv else argv))

    def ran(self, work: Callable[[Recorder], Any]) -> list[list[str]]:
        """Return what a coroutine would have run."""
        recorder = Recorder()
        self.successResultOf(Deferred.fromCoroutine(work(recorder)).addErrback(
            lambda failure: failure.trap(CommandFailed, ValueError, KeyError, OSError)
        ))
        return recorder.ran

    def spawned(self, start: Callable[[SshSessions], Any]) -> list[str]:
        """Return the program that a session starts."""
        reactor = _Pipes()
        options = node_options(Path("/known"), Path("/key"))
        start(SshSessions(reactor, Launcher(), options))
        argv = reactor.processes[-1].argv
        return argv[argv.index("ssh"):]

    def test_node_command(self) -> None:
        """The words of `walt node run` follow `--`, in one argument; scripts, too."""
        def run(value: str) -> list[str]:
            return self.spawned(lambda one: one.node_command(
                IP, value, node_terminal=False, terminal=None, output=print, errors=print,
                ended=print,
            ))

        def words(value: str) -> list[str]:
            *before, last = run(value)
            self.assertEqual(last, bound(value))
            self.assertEqual(shlex.split(last)[-1], value)
            return [*before, value]

        self.harmless(words, over=[one for one in HOSTILE if one])
        self.harmless(lambda value: self.ran(
            lambda runner: SshNodeShell(runner, ["-F", "/dev/null"]).run(IP, value, timeout=1)
        )[0])

    def test_streams(self) -> None:
        """Nodes, accounts, terminals and paths of stream requests."""
        platform = Platform()
        wanted: list[tuple[bytes, dict[str, Any], str]] = [
            (b"REQ_NODE_CMD", {"command": "ls"}, "node"),
            (b"REQ_DEVICE_PING", {}, "device"),
            (b"REQ_DEVICE_SHELL", {"device": "node-1"}, "user"),
            (b"REQ_DEVICE_SHELL", {"user": "root"}, "device"),
            (b"REQ_NODE_CMD", {"node": "node-1", "command": "ls"}, "username"),
            (b"REQ_TAR_FROM_NODE", {"path": "/x", "kind": "f"}, "node"),
            (b"REQ_TAR_FROM_NODE", {"node": "node-1", "path": "/x"}, "kind"),
            (b"REQ_TAR_TO_NODE", {"node": "node-1", "directory": "/", "kind": "x"}, "name"),
        ]
        for request, parameters, key in wanted:
            for value in HOSTILE:
                if (key, value) == ("username", ""):
                    continue  # the account of the socket
                self._refused(platform, request, {**parameters, key: value})
        for value in HOSTILE:
            self._refused(platform, b"REQ_NODE_CMD", {
                "node": "node-1", "command": "ls",
                "terminal": {"term": value, "rows": 24, "columns": 80},
            })
        # What no program can be given: text that is not Unicode.
        self._refused(platform, b"REQ_NODE_CMD", {"node": "node-1", "command": "a\ud800"})
        self._refused(platform, b"REQ_TAR_FROM_NODE", {
            "node": "node-1", "path": "/\ud800", "kind": "f",
        })

    def _refused(self, platform: Platform, request: bytes, parameters: dict[str, Any]) -> None:
        started = len(platform.sessions.made)
        connection = platform.connect(
            CLIENT, request + b"\n" + json.dumps(parameters).encode() + b"\n"
        )
        self.assertEqual(len(platform.sessions.made), started, parameters)
        (payload,) = [payload for kind, payload in connection.frames() if kind == frames.RESULT]
        self.assertIn(json.loads(payload)["code"], ("INVALID", "NOT_FOUND"), parameters)

    def test_json_texts(self) -> None:
        """AMP values in JSON hold Unicode only."""
        for kind in (arguments.Json(), arguments.Names(), arguments.Texts()):
            for text in (b'["\\ud800"]', b'{"a": "\\udfff"}', b'"\xed\xa0\x80"'):
                with self.assertRaises(Invalid):
                    kind.fromString(text)

    def directory(self) -> Path:
        """Return a directory, removed at the end."""
        path = Path(tempfile.mkdtemp(prefix="wti-"))
        self.addCleanup(shutil.rmtree, path)
        return path

    def builder(self, places: Path) -> PodmanBuilder:
        self.recorder = Recorder()
        return PodmanBuilder(
            self.recorder, Any, Storage(), Engine(None, ()), Surroundings(),  # type: ignore[arg-type]
            places, Repositories(self.recorder, partial(git_command, None)),
        )

    def test_git(self) -> None:
        """Addresses of repositories: four protocols, after `--`, hosts are no options of ssh."""
        builder, place = self.builder(Path("/places")), self.directory()
        (place / "tmp").mkdir()

        def fetch(url: str) -> list[str]:
            self.recorder.answer = b"192.0.2.7 STREAM host\n"
            self.patch(Repositories, "_own_addresses", succeed_with_nothing)
            made: list[Any] = []
            Deferred.fromCoroutine(
                builder.fetch_command(place, url, progress=False)
            ).addBoth(made.append)
            if isinstance(made[0], Failure):
                made[0].raiseException()
            argv: list[str] = made[0]
            return argv

        for url in (
            "https://example.org/a/b.git", "http://10.0.0.1:8080/x", "git://h/x", "ssh://h/x",
            "ssh://git@example.org:22/x", "git@example.org:a/b.git", "https://[fd00::1]/x",
            "https://user:pass@host/x", "a.b-c@h:~/x",
        ):
            argv = fetch(url)
            asked = self.recorder.ran[-1]
            self.assertEqual(asked[:2], ["getent", "ahosts"])
            self.assertNotEqual(asked[2][0], "-")
            there = "git://192.0.2.7/x" if url.startswith("git:") else url
            there = there.replace("user:pass@", "")
            self.assertEqual(argv[-3:], ["--", there, str(place / "content")])
        for url in (
            *HOSTILE, f"ext::sh -c touch% {CANARY}", "https://", "ssh:///x",
            f"ssh://-oProxyCommand=touch${{IFS}}{CANARY}/x", "ssh://-x@host/x", "ssh://u@-x/x",
            "git://-x/x", "https://-x/x", "-x@host:path", "u@-x:path", "u@host:-x", "u@host:",
            "file:///srv", "/srv/repository", "../repository", "https://h/a b", "https://h/a\nb",
            "ftp://h/x", "https://h/" + "a" * 3000, "https://h\\@127.0.0.1/x", "https://h#@x/x",
            "https://h:0/x", "https://h:65536/x", "https://a@b@h/x", "https://[::1/x",
        ):
            try:
                self.fail(f"{url[:80]!r} was accepted: {fetch(url)[-3:]}")
            except Invalid:
                pass

    def test_build(self) -> None:
        """Sub-directories stay inside, whatever they are called; user names are in no option."""
        place = self.directory()
        builder = self.builder(place)
        for name in (PLAIN, "-x", "--help", "$(x)", "a b", "@file", "{ }", "'", "é"):
            (place / "content" / name).mkdir(parents=True)
            (place / "content" / name / "Dockerfile").write_text("FROM base\n")

        def build(subdir: str) -> list[str]:
            made = Deferred.fromCoroutine(
                builder.command(
                    place, subdir, "ann", "localhost/walt/temporary:1", ["ann/base:latest"]
                )
            )
            answers: list[Any] = []
            made.addBoth(answers.append)
            if isinstance(answers[0], Failure):
                answers[0].raiseException()
            argv: list[str] = answers[0]
            return argv

        # The empty name is the content itself; "-" and so on do not exist.
        self.harmless(build, over=[one for one in HOSTILE if one not in ("", "\ud800")])
        for subdir in ("-x", "--help", "$(x)"):
            self.assertEqual(build(subdir)[-2:], ["--", str(place / "content" / subdir)])

    def test_images(self) -> None:
        """Names of images come after the name of their registry."""
        storage = Storage(Path("/s"), Path("/r"))
        scratch = self.directory()
        asking = Asking("ann")

        def of_podman(work: Callable[[Recorder], Any]) -> list[list[str]]:
            return [argv for argv in self.ran(work) if argv[0] == "podman"]

        def store(work: Callable[[PodmanStore], Any]) -> list[str]:
            return of_podman(lambda one: work(PodmanStore(one, storage, scratch / "cache")))[-1]

        def containers(work: Callable[[PodmanContainers], Any]) -> list[str]:
            found = of_podman(lambda one: work(
                PodmanContainers(
                    one, storage, Engine(None, ()), scratch, scratch, Surroundings()
                )
            ))
            (named,) = (argv for argv in found if "tag" in argv)
            return [re.sub(r"(temporary):\w+", r"\1:REFERENCE", word) for word in named]

        self.harmless(lambda value: store(lambda one: one.read(value)))
        self.harmless(lambda value: store(lambda one: one.untag(value)))
        self.harmless(lambda value: store(lambda one: one.tag(IMAGE_ID, value)))
        self.harmless(lambda value: containers(
            lambda one: one.commit("walt-session-1", f"ann/{value}", asking)
        ))

        def copies(work: Callable[[SkopeoRegistry], Any]) -> list[str]:
            async def copy(runner: Recorder) -> None:
                skopeo = Skopeo(runner, storage, scratch)
                registry = SkopeoRegistry(
                    runner, None, Stored(), storage, skopeo,  # type: ignore[arg-type]
                    RegistryInfo("lab", ""), Location("lab.example", 443, "https"), scratch,
                )
                runner.answer = b"{}"
                await work(registry)

            argv = self.ran(copy)[-1]
            return [re.sub(rf"{scratch}/\S+", "FILE", word) for word in argv]

        self.harmless(lambda value: copies(lambda one: one.inspect(value, None)))
        self.harmless(lambda value: copies(lambda one: one.pull(value, "x", None, asking)))
        self.harmless(lambda value: copies(lambda one: one.push(value, "ann/x", None, asking)))
        self.harmless(lambda value: copies(lambda one: one.push("ann/x", value, None, asking)))

    def test_environment_of_images(self) -> None:
        """The configuration of an image stays in the arguments of its options."""
        scratch = self.directory()
        for value in HOSTILE:
            async def start(runner: Recorder, value: str = value) -> None:
                runner.answer = json.dumps([{"Config": {
                    "Entrypoint": [value], "Cmd": [value], "WorkingDir": value,
                    "Env": [value, f"A={value}"],
                }}]).encode()
                containers = PodmanContainers(
                    runner, Storage(), Engine(None, ()), scratch, Path("/layers"), Surroundings()
                )
                await containers.start(StoredImage("ann/x:latest", IMAGE_ID), ContainerOptions())

            argv = next(one for one in self.ran(start) if "create" in one[:3])
            for number, word in enumerate(argv):
                if word in (value, f"A={value}") and word not in ("-", "--", ""):
                    self.assertEqual(argv[number - 1], "--env")
                    self.assertIn("=", word)  # podman would take the value of its own variable
            self.assertEqual(argv[-1], IMAGE_ID)

    def test_qemu(self) -> None:
        """A comma in the path of a disk begins no option of the drive."""
        machine = MachineConfig("vnode1", MAC, "pc-x86-64", 512, 1, None)
        argv = qemu_command(machine, "tcg", [], [], ["/srv/a,readonly=on,x/disk_0.dd"])
        (drive,) = [word for word in argv if word.startswith("file=")]
        self.assertEqual(
            drive, "file=/srv/a,,readonly=on,,x/disk_0.dd,format=raw,id=disk0,if=none"
        )
        self.assertIn("set user-class walt.node.pc-x86-64\n", ipxe_script("pc-x86-64"))

    def test_taps(self) -> None:
        """Names of networks are one word of a line for `ip`, which is checked again there."""
        for value in HOSTILE:
            ran = Recorder()
            creation = Deferred.fromCoroutine(Taps(ran).create_tap("tap1", value))
            creation.addErrback(lambda failure: failure.trap(Invalid))
            if self.successResultOf(creation) is not Invalid:
                self.assertRegex(value, r"^[A-Za-z0-9:]+$")
                self.assertIn(f"link set dev tap1 master {value}\n", ran.inputs[-1])


class Stored:
    """A worker that keeps no credentials."""

    async def call(self, name: str, values: Any) -> None:
        """There are none."""


class RemoteShellTests(TestCase):
    """Scripts for nodes and containers: paths are quoted whole."""

    async def test_scripts(self) -> None:
        """A shell that runs them touches nothing else, whatever the path is."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        canary = directory / "owned"
        for number, value in enumerate(HOSTILE):
            if "\0" in value or "\ud800" in value or len(value) > 255:
                continue
            value = value.replace(CANARY, str(canary))
            path = f"{directory}/{number}/{value}"
            for script in (
                probe_script(path), send_script(path, "f", merge=False),
                send_script(path, "d", merge=False), send_script(path, "d", merge=True),
                receive_script(Place(f"{directory}/none", value or "x"), "f"),
                list_script(path, ""), list_script(str(directory), value),
            ):
                self.assertTrue(any(
                    word.removeprefix("file=") in (path, f"./{path.rpartition('/')[2]}")
                    or value in word
                    for word in shlex.split(script, comments=False)
                ), script)
                await getProcessOutputAndValue("/bin/sh", ["-c", script + " </dev/null"])
                self.assertFalse(canary.exists(), script)
        self.assertEqual(list(directory.iterdir()), [])
