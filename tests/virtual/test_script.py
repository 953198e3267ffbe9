"""The interpreter of boot scripts, on scripts of images and on anything else."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid, NotFound, WaltError
from walt.virtual.script import (
    MAX_PATH,
    Boot,
    GaveUp,
    Interpreter,
    Location,
    known,
    locate,
    logical_lines,
)
from walt.virtual.variables import MAX_TEXT, Variables

ROOT = Path(__file__).resolve().parents[2]
MAC = "52:54:00:00:00:01"
NODE = {
    "model": "pc-x86-64", "mac": MAC, "ip": "192.168.1.9", "netmask": "255.255.255.0",
    "gateway": "", "hostname": "vnode1", "server": "192.168.1.1",
}


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


class Files:
    """Boot files in memory; what is stored keeps its address as path."""

    def __init__(self, scripts: Mapping[str, str], images: tuple[str, ...] = ()) -> None:
        self.scripts, self.images = scripts, images
        self.asked: list[str] = []

    async def text(self, location: Location, limit: int) -> str:
        """Return a script."""
        self.asked.append(str(location))
        if str(location) not in self.scripts:
            raise NotFound(f"no {location}")
        return self.scripts[str(location)]

    async def store(self, location: Location) -> Path:
        """Return a name that tells what was asked for."""
        self.asked.append(str(location))
        if str(location) not in self.images:
            raise NotFound(f"no {location}")
        return Path(f"/stored/{location.scheme}{location.path}")


async def no_sleep(seconds: float) -> None:
    """Wait for nothing."""


class ScriptTests(SynchronousTestCase):
    def boot(self, files: Files, **changed: str) -> Boot:
        """Run the scripts of a node."""
        self.said: list[str] = []
        interpreter = Interpreter(
            files, known(**{**NODE, **changed}), self.said.append, no_sleep
        )
        found: Boot = finish(interpreter.run())
        return found

    def one(self, script: str, *images: str) -> Boot:
        """Run a node that has one script, fetched by HTTP."""
        return self.boot(Files({"http:/boot/start.ipxe": script}, images))

    def test_the_script_of_our_images(self) -> None:
        """walt/images/start.ipxe boots by HTTP, and by TFTP when HTTP has nothing."""
        script = (ROOT / "walt/images/start.ipxe").read_text()
        for scheme, prefix in (("http", "/boot"), ("tftp", "")):
            found = self.boot(Files(
                {f"{scheme}:{prefix}/start.ipxe": script},
                (f"{scheme}:{prefix}/kernel", f"{scheme}:{prefix}/initrd"),
            ))
            self.assertEqual(found.kernel, Path(f"/stored/{scheme}{prefix}/kernel"))
            self.assertEqual(found.initrds, (Path(f"/stored/{scheme}{prefix}/initrd"),))
            for word in (
                "root=/dev/nfs", f"walt.node.mac={MAC}", "walt.server.ip=192.168.1.1",
                "ip=192.168.1.9:192.168.1.1::255.255.255.0:vnode1::off",
                "BOOTIF=01-52-54-00-00-00-01", "console=ttyS0", "init=/bin/walt-init",
            ):
                self.assertIn(word, found.arguments.split())

    def test_http_fails_half_way(self) -> None:
        """Without the kernel the script of our images turns to TFTP, from nothing."""
        script = (ROOT / "walt/images/start.ipxe").read_text()
        found = self.boot(Files(
            {"http:/boot/start.ipxe": script}, ("http:/boot/initrd", "tftp:/kernel", "tftp:/initrd")
        ))
        self.assertEqual(found.kernel, Path("/stored/tftp/kernel"))
        self.assertEqual(found.initrds, (Path("/stored/tftp/initrd"),))

    def test_the_shape_of_older_scripts(self) -> None:
        """Chained scripts relative to each other, optional ones, absolute paths by TFTP."""
        found = self.boot(Files({
            "http:/boot/start.ipxe": "#!ipxe\nset here http://${next-server}/boot\n"
                                     "chain start-generic.ipxe || reboot",
            "http:/boot/start-generic.ipxe":
                "set kargs a=1\n"
                "chain server-params.ipxe || echo no server parameters\n"
                "chain ${manufacturer}/${product}/boot-params.ipxe ||\n"
                "initrd /initrd && kernel ${here}/kernel ${kargs} b=${mac:hexhyp} \\\n  c && boot",
            "http:/boot/QEMU/Standard PC (i440FX + PIIX, 1996)/boot-params.ipxe": "set kargs a=2",
        }, ("tftp:/initrd", "http:/boot/kernel")))
        # A setting with spaces stays one word: the optional script is found.
        self.assertEqual(found.arguments, "a=2 b=52-54-00-00-00-01 c")
        self.assertIn("no server parameters", self.said)

    def test_failures_are_told(self) -> None:
        """What a script goes on after is shown, tests of settings excepted."""
        self.one("isset ${x} || kernel a ||\nkernel k\nboot", "http:/boot/k")
        self.assertEqual(
            self.said, ["running http:/boot/start.ipxe", "no http:/boot/a", "fetched http:/boot/k"]
        )

    def test_operators(self) -> None:
        """&& and || from the left; an empty operand is true; the rest of a line is a comment."""
        for line, expected in (
            ("isset x && set r 1", "1"), ("isset ${none} && set r 1 ||", ""),
            ("isset ${none} || set r 1", "1"), ("isset x || set r 1", ""),
            ("isset ${none} && set r 1 || set r 2", "2"), ("isset x || set q 1 && set r 3", "3"),
            ("iseq a a && set r 4 # && set r 5", "4"), ("iseq a b && set r 6 || ", ""),
        ):
            found = self.one(f"set r\n{line}\nkernel k ${{r}}\nboot", "http:/boot/k")
            self.assertEqual(found.arguments, expected, line)

    def test_given_up(self) -> None:
        """Scripts that fail, stop, ask for it, or never end."""
        for script in (
            "", "boot", "kernel missing\nboot", "reboot", "shell || boot", "nothing-known",
            "exit 1", "exit\nkernel k\nboot", "goto nowhere", ":a\ngoto a", "chain start.ipxe",
            "kernel k\nimgfree\nboot", "kernel k\nimgfree k\nboot", "kernel", "kernel --wrong k",
            "kernel file:///etc/passwd\nboot", "kernel ftp://x/k\nboot", "sleep 61", "sleep x",
            "set a" + " x" * MAX_TEXT, "set a xx\n:b\nset a ${a}${a}\ngoto b",
            "kernel k\n" * 17 + "boot", "set bad/name x", "iseq a", "set",
        ):
            self.assertRaises(GaveUp, self.one, script, "http:/boot/k")

    def test_locations(self) -> None:
        """The host is ignored, paths are of the server alone."""
        base = Location("http", "/boot/sub/start.ipxe")
        for text, expected in (
            ("kernel", "http:/boot/sub/kernel"), ("../kernel", "http:/boot/kernel"),
            ("/kernel", "tftp:/kernel"), ("tftp://10.0.0.1/a%20b", "tftp:/a b"),
            ("http://other/boot/../../etc/shadow", "http:/etc/shadow"),
            ("http://x//boot//k?node_ip=1", "http:/boot/k"),
        ):
            self.assertEqual(str(locate(text, base)), expected)
        for text in (
            "", "/", "../..", "https://x/k", "file:/k", "http://[/k", "/a%0ab", "/" + "x" * 2000,
        ):
            self.assertRaises(Invalid, locate, text, base)
        self.assertRaises(Invalid, locate, "kernel", None)

    @given(st.text(max_size=200))
    def test_any_location(self, text: str) -> None:
        """Whatever is written names a file of the server, or is refused."""
        try:
            found = locate(text, Location("tftp", "/start.ipxe"))
        except Invalid:
            return
        self.assertIn(found.scheme, ("http", "tftp"))
        self.assertTrue(found.path.startswith("/") and len(found.path) <= MAX_PATH)
        self.assertNotIn("..", found.path.split("/"))
        self.assertTrue(found.path.isprintable())

    @given(st.lists(st.sampled_from((
        "set a b", "set b ${a}${b}", "kernel k ${a}", "initrd i", "boot", "goto x", ":x", "echo",
        "chain s", "imgfree", "isset ${a} && goto x ||", "exit", "sleep 1", "||", "&& ||", "${a}",
        "iseq ${a} ${b} || chain s", "reboot", "\\", "#", "kernel -n",
    )), max_size=12))
    def test_any_script(self, lines: list[str]) -> None:
        """Any script boots what it fetched, or is given up."""
        text = "\n".join(lines)
        files = Files({"http:/boot/start.ipxe": text, "http:/boot/s": text}, ("http:/boot/k",))
        try:
            found = self.boot(files)
        except GaveUp:
            return
        self.assertEqual(found.kernel, Path("/stored/http/boot/k"))
        self.assertLessEqual(len(found.arguments), MAX_TEXT)

    @given(st.text(max_size=300))
    def test_any_text(self, text: str) -> None:
        """No text breaks the interpreter."""
        self.assertRaises(GaveUp, self.one, text)
        self.assertTrue(logical_lines(text))


class VariablesTests(SynchronousTestCase):
    def test_references(self) -> None:
        """Interfaces in front, forms behind, references in references."""
        variables = Variables({"mac": MAC, "one": "mac", "space": "a b"})
        for text, expected in (
            ("${mac}-${net0/mac}", f"{MAC}-{MAC}"), ("${netX/mac:hexhyp}", "52-54-00-00-00-01"),
            ("${${one}:hexraw}", "525400000001"), ("${space:uristring}", "a%20b"),
            ("${nothing}${", "${"), ("$x {y}", "$x {y}"),
        ):
            self.assertEqual(variables.expand(text), expected)
        variables.set("net0/one:string", "two")
        self.assertEqual(variables.get("one"), "two")
        variables.set("one", "")
        self.assertEqual(variables.get("one"), "")
        variables.set("loop", "${loop}")
        self.assertRaises(Invalid, variables.expand, "${loop}")

    @given(st.text(alphabet="${}ab:/", max_size=60), st.text(alphabet="${}ab:/", max_size=60))
    def test_any_text(self, value: str, text: str) -> None:
        """Whatever is set and written, a text comes out or it is refused."""
        variables = Variables({})
        try:
            variables.set("a", value)
            self.assertLessEqual(len(variables.expand(text)), MAX_TEXT)
        except WaltError:
            pass
