"""The Python API on a live platform, with a node that boots."""

from __future__ import annotations

import sys

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not

# What the script tells is told apart from reports of reboots and output of builds.
TOLD = "> "
IMAGES = """
def tell(*words):
    print('>', *words)

node = api.nodes.create_vnode('vm')
images = api.images.get_images()
tell(images.keys(), images['pc-x86-64-small'].compatibility, images['pc-x86-64-small'].in_use)
copy = api.images.clone('walt:waltplatform/pc-x86-64-default', image_name='copy')
tell(copy.fullname, sorted(copy.aliases), images.keys(), api.images.get_images().keys())
every = api.images.get_images()
copy.rename('other')
tell(copy.name, every.keys(), every.filter(name='other').keys())
tell(api.images.clone('walt:waltplatform/pc-x86-64-default', image_name='other'))
built = api.images.build('built', sys.argv[1])
tell(built.name, api.images.build('built', sys.argv[1]))
"""
NODES = """
from walt.client.exceptions import *
node.wait(timeout=300)
tell(node.booted, node.owner, node.image is every['pc-x86-64-small'], node.virtual)
ran = node.run('echo 1; echo wrong >&2; exit 3')
tell(ran.status, ran.json(), ran.error.strip())
try:
    node.run('sleep 600', timeout=2)
except TimeoutException:
    tell('late')
every['pc-x86-64-small'].remove()
tell(every['pc-x86-64-small'].in_use)
node.boot(copy)
node.wait(timeout=300)
tell(node.image is copy, copy.in_use)
tell(any('booted' in log.line and log.issuer.device_type == 'server'
          for log in api.logs.get_logs(history='full', issuers='server')))
records = node.boots()
tell([(one.cause, one.outcome, one.tries) for one in records])
tell([one.digest == records[0].digest for one in records], records[1].image == copy.fullname)
moments = [getattr(records[1], name) for name in
           ('started', 'address', 'script', 'kernel', 'root', 'system', 'ready')]
tell(moments == sorted(moments), records[1].seconds > 1)
try:
    node.boot('nothing')
except NoSuchImageNameException:
    tell('no image')
try:
    tell(node.remove())
except NodeHasLogsException:
    tell('logs')
node.remove(force=True)
try:
    node.name
except ReferenceError:
    tell('gone')
copy.remove()
tell(every.keys())
tell(api.tools.get_server().ip, api.tools.get_server().walt_version)
"""

SETS = """
from walt.client.exceptions import *

def tell(*words):
    print('>', *words)

nodes = api.nodes.get_nodes()
one, two = nodes['node-000001'], nodes['node-000002']
tell([one.owner for one in nodes], nodes.filter(owner='waltplatform').keys())
tell(nodes.acquire(), [one.owner for one in nodes], [one.image.fullname for one in nodes])
for work in (one.acquire, lambda: nodes.boot('nothing')):
    try:
        work()
    except (NodeAlreadyOwnedException, NoSuchImageNameException) as error:
        tell(type(error).__name__)
mine = api.images.clone('walt:waltplatform/pc-x86-64-default', image_name='mine')
tell(nodes.boot(mine), [one.image is mine for one in nodes], mine.in_use)
tell(one.release(), one.owner, one.image.fullname, repr(one.image).splitlines()[0])
try:
    nodes.release()
except OpAppliesNodeOwnedException as error:
    tell(error)
one.forget(force=True)
try:
    one.name
except ReferenceError as error:
    tell(error)
tell(api.nodes.get_nodes().keys(), nodes.keys())
"""
OTHERS = """
from walt.client.exceptions import *
(node,) = api.nodes.get_nodes()
print('>', node.owner, node.image.fullname, repr(node.image).splitlines()[0])
for work in (node.release, node.reboot, lambda: node.boot('default')):
    try:
        work()
    except (NodeNotOwnedException, OpAppliesNodeOwnedException) as error:
        print('>', type(error).__name__)
copy = api.images.clone(node.image.clonable_link)
print('>', copy.fullname, node.boot(copy, force=True), node.owner)
"""


class ApiTests(TestCase):
    skip = why_not()
    timeout = patient(400)

    async def test_images_and_nodes(self) -> None:
        """Images are cloned, built, renamed and removed; a node boots them."""
        from twisted.internet import reactor

        import walt

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        context = platform.base / "recipe"
        context.mkdir()
        (context / "Dockerfile").write_text(
            "FROM pc-x86-64-small\nRUN echo built > /root/built\n"
        )
        await platform.start()
        ran = await platform.runner.run(
            [sys.executable, "-c", f"import sys; from walt.client import api{IMAGES}{NODES}",
             str(context)],
            env=platform.environment(), timeout=patient(350), check=False,
        )
        self.assertEqual(ran.status, 0, ran.stderr.decode())
        self.assertIn(b"Image other exists already", ran.stderr)
        self.assertIn(b"Replace it with: force=True", ran.stderr)
        told = [line for line in ran.stdout.decode().splitlines() if line.startswith(TOLD)]
        self.assertEqual(told, [f"> {line}" for line in (
            "['pc-x86-64-small'] ('pc-x86-64',) True",
            "alice/copy:latest ['pc-x86-64-small'] ['pc-x86-64-small'] ['copy', 'pc-x86-64-small']",
            "other ['other', 'pc-x86-64-small'] ['other']",
            "None", "built None",
            "True alice True True", "3 1 wrong", "late", "True", "True True", "True",
            "[('created', 'booted', 1), ('image change', 'booted', 1)]", "[True, True] True",
            "True True", "no image",
            "logs", "gone",
            "['pc-x86-64-small']", f"{platform.net}.1 {walt.__version__}",
        )])

    async def test_owners_and_sets(self) -> None:
        """Boards that do not answer get and lose owners, one by one and as a set."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        for number in (1, 2):
            await platform.event(
                "commit", "", "walt.node.pc-x86-64", f"{platform.net}.3{number}",
                f"02:00:00:00:00:0{number}", "", "0", "unknown",
            )
        small = "alice/pc-x86-64-small:latest"
        self.assertEqual(await self._told(platform, SETS, "alice"), [
            "['waltplatform', 'waltplatform'] ['node-000001', 'node-000002']",
            f"False ['alice', 'alice'] ['{small}', '{small}']",  # they do not answer
            "NodeAlreadyOwnedException", "NoSuchImageNameException",
            "False [True, True] True",
            "False waltplatform waltplatform/pc-x86-64-default:latest"
            " < -- default for pc-x86-64 nodes --",
            "not yours: node-000001", "this node was removed",
            "['node-000002'] ['node-000002']",
        ])
        self.assertEqual(await self._told(platform, OTHERS, "bob"), [
            'alice alice/mine:latest < -- alice\'s "mine" --', "OpAppliesNodeOwnedException",
            "NodeNotOwnedException", "NodeNotOwnedException", "bob/mine:latest False bob",
        ])

    async def _told(self, platform: LivePlatform, script: str, user: str) -> list[str]:
        ran = await platform.runner.run(
            [sys.executable, "-c", f"import sys; from walt.client import api{script}"],
            env=platform.environment(user), timeout=patient(120), check=False,
        )
        self.assertEqual(ran.status, 0, ran.stderr.decode())
        lines = ran.stdout.decode().splitlines()
        return [line.removeprefix(TOLD) for line in lines if line.startswith(TOLD)]
