"""People: each has nodes and images, and does one thing after the other with the walt command."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.live import LivePlatform

MOST_NODES = 2  # of one person: all machines share the processors
MOST_IMAGES = 5
BOOT = 240  # seconds given to a node, with all others booting at the same time
DEFAULT = "pc-x86-64-small"  # the image that a newcomer's first node boots


class Disappointed(AssertionError):
    """A command that had to succeed did not."""


@dataclass(frozen=True)
class Command:
    """One command that somebody gave: its kind, words, seconds and status."""

    kind: str
    words: tuple[str, ...]
    seconds: float
    status: int


class Person:
    """Somebody with a name of their own; `choice` decides what they do."""

    def __init__(
        self, platform: LivePlatform, name: str, choice: random.Random, place: Path
    ) -> None:
        self.platform = platform
        self.name = name
        self.choice = choice
        self.place = place
        self.commands: list[Command] = []
        self._count = 0

    # -- commands -----------------------------------------------------------

    async def walt(
        self, kind: str, *words: str, timeout: float = 300.0, answer: bytes = b""
    ) -> str:
        """Give a command that must succeed; `answer` is what it reads. Return its output."""
        clock = self.platform.reactor
        begun = clock.seconds()
        result = await self.platform.walt(
            *words, user=self.name, timeout=timeout, stdin=answer
        )
        taken = clock.seconds() - begun
        if kind:
            self.commands.append(Command(kind, words, taken, result.status))
        if result.status != 0:
            raise Disappointed(
                f"{self.name}: walt {' '.join(words)}: status {result.status} after {taken:.1f} s\n"
                f"{result.stdout.decode(errors='replace')}{result.stderr.decode(errors='replace')}"
            )
        return result.stdout.decode()

    async def nodes(self) -> dict[str, str]:
        """Return the names of this person's nodes, with their images."""
        rows = json.loads(await self.walt("", "node", "show", "--json"))["own"]
        return {row["name"]: row["image_name"] for row in rows}

    async def images(self) -> list[str]:
        """Return the names of this person's images."""
        return (await self.walt("", "image", "show", "--names-only")).split()

    async def booted(self, *nodes: str) -> None:
        """Wait until nodes are booted."""
        await self.walt(
            "", "node", "wait", "--timeout", str(BOOT), ",".join(nodes), timeout=2 * BOOT
        )

    def fresh(self, what: str) -> str:
        """Return a name that this person never gave before."""
        self._count += 1
        return f"{what}-{self.name}-{self._count}"

    # -- what people do -----------------------------------------------------

    async def create(self) -> None:
        if len(await self.nodes()) < MOST_NODES:
            await self.walt("node create", "node", "create", self.fresh("n"))

    async def remove(self) -> None:
        if nodes := await self.nodes():
            name = self.choice.choice(sorted(nodes))
            await self.walt("node remove", "node", "remove", "--force", name)

    async def rename(self) -> None:
        if nodes := await self.nodes():
            old = self.choice.choice(sorted(nodes))
            await self.walt("node rename", "node", "rename", old, self.fresh("r"))

    async def boot(self) -> None:
        nodes, images = await self.nodes(), await self.images()
        if nodes and images:
            node, image = self.choice.choice(sorted(nodes)), self.choice.choice(images)
            await self.walt("node boot", "node", "boot", node, image)

    async def reboot(self) -> None:
        if nodes := await self.nodes():
            hard = ["--hard"] if self.choice.random() < 0.5 else []
            await self.walt("node reboot", "node", "reboot", *hard, ",".join(sorted(nodes)))

    async def config(self) -> None:
        if nodes := await self.nodes():
            node = self.choice.choice(sorted(nodes))
            value = self.choice.choice(["true", "false"])
            await self.walt("node config", "node", "config", node, f"mount.persist={value}")

    async def run(self) -> None:
        if nodes := await self.nodes():
            node = self.choice.choice(sorted(nodes))
            await self.booted(node)
            text = await self.walt("node run", "node", "run", node, "--", "uname", "-s")
            if text.strip() != "Linux":
                raise Disappointed(f"{node} says {text!r}")

    async def copy(self) -> None:
        if nodes := await self.nodes():
            node = self.choice.choice(sorted(nodes))
            await self.booted(node)
            content = self.choice.randbytes(20_000)
            file, back = self.place / self.fresh("file"), self.place / self.fresh("back")
            file.write_bytes(content)
            await self.walt("node cp", "node", "cp", str(file), f"{node}:/tmp/sent")
            await self.walt("node cp", "node", "cp", f"{node}:/tmp/sent", str(back))
            if back.read_bytes() != content:
                raise Disappointed(f"{node} gave back another file than it had got")

    async def save(self) -> None:
        nodes, images = await self.nodes(), await self.images()
        if nodes:
            node = self.choice.choice(sorted(nodes))
            name = self.choice.choice([*images, self.fresh("i")])
            if len(images) >= MOST_IMAGES:
                name = self.choice.choice(images)
            await self.booted(node)
            await self.walt("node save", "node", "save", node, name, answer=b"y\n")

    async def image_copy(self) -> None:
        if images := await self.images():
            file = self.place / self.fresh("file")
            file.write_text(self.name)
            image = self.choice.choice(images)
            await self.walt(
                "image cp", "image", "cp", str(file), f"{image}:/root/{file.name}",
                answer=b"y\n",
            )

    async def image_duplicate(self) -> None:
        images = await self.images()
        if images and len(images) < MOST_IMAGES:
            name = self.choice.choice(images)
            await self.walt("image duplicate", "image", "duplicate", name, self.fresh("i"))

    async def image_rename(self) -> None:
        nodes, images = await self.nodes(), await self.images()
        if free := sorted(set(images) - set(nodes.values()) - {DEFAULT}):
            name = self.choice.choice(free)
            await self.walt("image rename", "image", "rename", name, self.fresh("i"))

    async def image_remove(self) -> None:
        nodes, images = await self.nodes(), await self.images()
        if free := sorted(set(images) - set(nodes.values()) - {DEFAULT}):
            await self.walt("image remove", "image", "remove", self.choice.choice(free))

    async def look(self) -> None:
        await self.walt("node show", "node", "show", "--all")
        await self.walt("log show", "log", "show", "--platform", "--history", "-30s:")

    @property
    def habits(self) -> dict[Callable[[], Awaitable[None]], int]:
        """What this person does, and how often."""
        return {
            self.create: 6, self.remove: 3, self.rename: 3, self.boot: 4, self.reboot: 2,
            self.config: 2, self.run: 4, self.copy: 2, self.save: 2, self.image_copy: 2,
            self.image_duplicate: 2, self.image_rename: 1, self.image_remove: 2, self.look: 2,
        }

    async def work(self, until: float) -> None:
        """Do one thing after the other until `until` (seconds of the reactor)."""
        clock: Any = self.platform.reactor
        things, weights = zip(*self.habits.items(), strict=True)
        while clock.seconds() < until:
            (thing,) = self.choice.choices(things, weights)
            await thing()
            await self.platform.sleep(self.choice.uniform(0, 2))

    async def tour(self) -> None:
        """Do each thing once, on a platform where nobody else works."""
        for thing in (
            self.create, self.look, self.rename, self.config, self.image_duplicate, self.run,
            self.copy, self.save, self.image_copy, self.boot, self.image_rename,
            self.image_remove, self.reboot, self.create, self.remove,
        ):
            await thing()
