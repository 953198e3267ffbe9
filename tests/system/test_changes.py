"""`walt device changes`: whatever people do is recorded, with who did it, and stays."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not
from tests.system.switch_lab import Switch, explored, plug

PC = "walt.node.pc-x86-64"
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
SWITCH = "02:00:00:00:0a:01"


class ChangesTests(TestCase):
    skip = why_not()
    timeout = patient(240)

    async def told(self, *words: str, user: str = "alice") -> list[dict[str, Any]]:
        """Return the changes that the command gives to programs."""
        found: list[dict[str, Any]] = json.loads(
            await self.platform.ok("device", "changes", "--json", *words, user=user)
        )
        return found

    async def news(self, *words: str) -> list[tuple[Any, ...]]:
        """Return what is new since this was asked before: who, what, before, after."""
        found = [one for one in await self.told(*words) if one["id"] > self.seen]
        self.seen = max((one["id"] for one in found), default=self.seen)
        return [
            (one["who"], one["name"] or one["mac"], one["kind"], one["item"], one["before"],
             one["after"]) for one in found
        ]

    async def test_everything_is_recorded(self) -> None:
        """Nodes, settings, ownership, images, names and cables, over a restart."""
        from twisted.internet import reactor

        self.platform = platform = LivePlatform(reactor)
        self.seen = 0
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        for number, mac in enumerate(MACS, 1):
            ip = f"192.168.181.3{number}"
            await platform.event("commit", "", PC, ip, mac, "", "0", "unknown")
        first = await self.news()
        default = "waltplatform/pc-x86-64-default:latest"
        for fact in (("device", "", None, "node"), ("name", "", None, "node-000001"),
                     ("model", "", None, "pc-x86-64"), ("image", "", None, default)):
            self.assertIn((None, "node-000001", *fact), first)
        await platform.ok("log", "add-checkpoint", "here")

        await platform.ok("node", "config", "node-000001", "boot.retries=4")
        self.assertEqual(await self.news(), [
            ("alice", "node-000001", "setting", "boot.retries", None, "4"),
        ])
        await platform.walt("node", "acquire", "node-000001", user="bob")  # it does not answer
        found = await self.news()
        image = "bob/pc-x86-64-small:latest"
        self.assertIn(
            ("bob", "stored-image", image, None),
            [(who, kind, item, before) for who, _, kind, item, before, _ in found],
        )
        for wanted in (
            ("bob", "node-000001", "image", "", default, image),
            ("bob", "node-000001", "owner", "", None, "bob"),
        ):
            self.assertIn(wanted, found)
        self.assertEqual({one[0] for one in found}, {"bob"})
        await platform.ok("device", "rename", "node-000002", "desk")
        self.assertEqual(await self.news(), [
            ("alice", "desk", "name", "", "node-000002", "desk"),
        ])
        await self.images(image.removeprefix("bob/").removesuffix(":latest"))
        await self.cables()

        # What secrets there are stay where they were.
        await platform.ok("device", "config", "switch-000a01", "snmp.community=hush-hush")
        self.assertEqual(await self.news(), [
            ("alice", "switch-000a01", "setting", "snmp.community", "<set>", "<set>"),
        ])
        await platform.ok("device", "forget", "--force", "desk", user="bob")
        found = await self.news()
        self.assertIn(("bob", MACS[1], "name", "", "desk", None), found)
        self.assertIn(("bob", MACS[1], "device", "", "node", None), found)

        before = await self.told()
        self.assertNotIn("hush", json.dumps(before))
        await platform.stop()
        await platform.start()
        self.assertEqual((await self.told())[:len(before)], before)
        await self.ways_to_ask(before)

    async def images(self, name: str) -> None:
        """A copy of an image, another content of it, its end: by ids."""
        platform, fullname = self.platform, "bob/other:latest"
        await platform.ok("image", "duplicate", name, "other", user="bob")
        file = platform.base / "fresh"
        file.write_text("content")
        await platform.ok("image", "cp", str(file), "other:/root/fresh", user="bob")
        await platform.ok("image", "remove", "other", user="bob")
        found = await self.news()
        ids = [one[5] for one in found]
        self.assertEqual(found, [
            ("bob", None, "stored-image", fullname, before, after)
            for before, after in ((None, ids[0]), (ids[0], ids[1]), (ids[1], None))
        ])
        self.assertNotEqual(ids[0], ids[1])

    async def cables(self) -> None:
        """A cable that is plugged, plugged elsewhere, silent, and is no more: by nobody's call."""
        platform, switch = self.platform, Switch("access", SWITCH)
        await plug(self, platform, switch, "192.168.181.201")
        switch.sees(MACS[0], 3)
        name = await explored(platform, switch.mac)
        found = await self.news()
        self.assertIn(("alice", name, "device", "", None, "switch"), found)
        self.assertIn(("alice", name, "setting", "snmp.community", None, "<set>"), found)
        first, second = (
            (None, node, "link", SWITCH) for node in ("node-000001", "desk")
        )
        for change, wanted in (
            (lambda: None, [(*first, None, "? - 3")]),
            (lambda: (switch.forgets(MACS[0]), switch.sees(MACS[0], 4)),
             [(*first, "? - 3", "? - 4")]),
            (lambda: switch.forgets(MACS[0]), []),  # it is off
            (lambda: switch.sees(MACS[0], 4), []),
            (lambda: (switch.forgets(MACS[0]), switch.sees(MACS[1], 4)),
             [(*first, "? - 4", None), (*second, None, "? - 4")]),
        ):
            change()
            await platform.ok("device", "rescan", name)
            self.assertEqual(
                [one for one in await self.news() if one[2] == "link" and one[3] == SWITCH], wanted
            )
            await platform.ok("device", "rescan", name)
            self.assertEqual(await self.news(), [])

    async def ways_to_ask(self, all_of_them: list[dict[str, Any]]) -> None:
        """By a date, a time ago, a checkpoint; what is none of these is an error."""
        here = await self.told("--since", "here")
        self.assertTrue(0 < len(here) < len(all_of_them))
        self.assertEqual(here[0]["item"], "boot.retries")
        for when in ("2026-01-01", "2026-01-01 10:00", "2026-01-01 10:00:30", "-2h"):
            self.assertEqual((await self.told("--since", when))[:len(all_of_them)], all_of_them)
        self.assertEqual(await self.told("--since", "9000-01-01"), [])
        table = await self.platform.ok("device", "changes", "--since", "here")
        self.assertRegex(table, r"alice +node-000001 +setting boot.retries +4")
        self.assertIn("(platform)", await self.platform.ok("device", "changes"))
        for wrong in ("yesterday", "-2x", "x'; DROP TABLE changes; --", "99999-01-01", ""):
            refused = await self.platform.walt("device", "changes", "--since", wrong)
            self.assertNotEqual(refused.status, 0, wrong)
            self.assertNotIn(b"Traceback", refused.stderr)
        again = await self.platform.walt("device", "changes", "--since", "here", user="bob")
        self.assertIn(b"no checkpoint", again.stderr)
