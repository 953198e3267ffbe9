"""Archives for builds that no honest client sends."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from typing import Any

from twisted.trial.unittest import TestCase

from tests.system.live import LivePlatform
from walt.server.runtime.process import ProcessResult

_SENDER = """
import sys
from walt.client import remote
from walt.client.stream import Stream
from walt.common import frames
stream = Stream("REQ_TAR_FOR_IMAGE_BUILD", {"image": "hostile"})
stream.send(frames.DATA, open(sys.argv[1], "rb").read())
stream.send(frames.END)
sys.exit(remote.output_only(stream))
"""


async def check_archives(case: TestCase, platform: LivePlatform) -> None:
    """Archives of any content: refused with the reason, or harmless; nothing is left."""
    outside = platform.base / "outside"
    recipe = ("Dockerfile", b"FROM tiny\nCOPY . /c/\nRUN busybox stat -c %a /c/f; exit 9\n")
    for text, *members in (
        ("forbidden path", recipe, ("../outside", b"x")),
        ("forbidden path", recipe, (str(outside), b"x")),
        ("goes through a link", recipe, link("a", "b"), link("b", "a"), ("a/f", b"x")),
        ("goes through a link", recipe, link("out", str(platform.base)), ("out/outside", b"x")),
        ("holds a device", recipe, ("null", tarfile.CHRTYPE)),
        ("holds a device", recipe, ("disk", tarfile.BLKTYPE)),
        ("is a link to something", link("Dockerfile", "/etc/passwd")),
        ("not a regular file", ("Dockerfile", tarfile.DIRTYPE)),
        ("not a regular file", ("Dockerfile", b"#" * (2 << 20))),
        # Built, but for its last command: depth is no problem.
        ("(status 9)", recipe, ("f", b"x"), ("/".join(["d"] * 100) + "/f", b"x"),
         link("loop", "loop"), link("etc", "/etc")),
    ):
        done = await raw_build(platform, tar_of(*members))
        case.assertEqual(done.status, 1, done)
        case.assertIn(text, done.stderr.decode())
        case.assertIn("The image was not built", done.stderr.decode())
    case.assertIn(b"755\n", done.stdout)  # the set-user-id bit is the builder's matter
    # Much out of little.
    await platform.runner.run(["truncate", "-s", "1T", str(platform.base / "huge")])
    await platform.runner.run([
        "tar", "-C", str(platform.base), "--sparse", "-czf", str(platform.base / "bomb"), "huge"
    ])
    bomb = (platform.base / "bomb").read_bytes()
    case.assertLess(len(bomb), 1 << 20)
    huge = tarfile.TarInfo("huge")
    huge.size = 1 << 40
    for text, data in (
        ("sparse", bomb), ("too large", huge.tobuf(tarfile.GNU_FORMAT)),
        ("damaged", b"garbage" * 100), ("damaged", bomb[:100]),
        ("no Dockerfile", tar_of()), ("damaged", b""),
    ):
        done = await raw_build(platform, data)
        case.assertEqual((done.status, text in done.stderr.decode()), (1, True), done)
    context = platform.base / "pipes"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM tiny\n")
    os.mkfifo(context / "pipe")
    piped = await platform.walt("image", "build", "--from-dir", str(context), "piped")
    case.assertEqual((piped.status, b"pipe cannot be copied" in piped.stderr), (0, True), piped)
    await platform.ok("image", "remove", "piped")
    case.assertEqual(list((platform.state / "builds").iterdir()), [])
    case.assertFalse(outside.exists())
    case.assertNotIn("hostile", await platform.ok("image", "show", "--names-only"))


async def raw_build(platform: LivePlatform, archive: bytes) -> ProcessResult:
    """Send an archive for a build, whatever it is."""
    path = platform.base / "archive"
    path.write_bytes(archive)
    return await platform.runner.run(
        [sys.executable, "-c", _SENDER, str(path)], check=False, timeout=60,
        env=platform.environment(),
    )


def link(name: str, target: str) -> tuple[str, str]:
    """Return a symbolic link, for `tar_of`."""
    return name, target


def tar_of(*members: tuple[str, Any]) -> bytes:
    """Return an archive: contents (setuid), targets of links, or types of special files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, value in members:
            one = tarfile.TarInfo(name)
            one.mode = 0o4755
            content = b""
            if isinstance(value, str):
                one.type, one.linkname = tarfile.SYMTYPE, value
            elif len(value) == 1 and value.isdigit():
                one.type, one.devmajor, one.devminor = value, 1, 3
            else:
                content, one.size = value, len(value)
            tar.addfile(one, io.BytesIO(content))
    return made.getvalue()
