"""Keys by which users reach the nodes that they own with programs of their own (ssh, ansible).

A node asks for those of its owner while it boots (walt/node/walt-user-keys), and again when it is
told to: at a new key, a key less, another owner. They lie in its own files, never in an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, DeferredList, DeferredLock, DeferredSemaphore

from walt.common.errors import Conflict, Invalid, LimitExceeded, NotFound, WaltError
from walt.common.names import PLATFORM_USER
from walt.common.sshkeys import PublicKey, parse
from walt.server.domain.devices.derived import Change
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.logs.lines import PlatformLog
from walt.server.domain.nodes.interfaces import INodeShell, IUserKeys
from walt.server.domain.nodes.status import BootStatus
from walt.server.runtime.coroutines import spawn, unbroken

MOST = 20  # keys of a user
AT_ONCE = 32  # nodes that are told at the same time: each is a process here
PATIENCE = 60.0  # seconds for a node to take keys
# A node that an older server booted has no such script: it takes keys from its next boot on.
ASK = "[ -x {0} ] || exit 3; exec {0}".format("/bin/_walt_internal_/walt-user-keys")


class UserKeys:
    """The public keys of users, and the nodes that shall have them.

    `store` provides IUserKeys, `shell` INodeShell. `host_line` returns that of
    known hosts for all nodes.
    """

    def __init__(
        self, registry: DeviceRegistry, store: IUserKeys, shell: INodeShell, booted: BootStatus,
        platform: PlatformLog, host_line: Callable[[], str],
    ) -> None:
        self._registry = registry
        self._store = store
        self._shell = shell
        self._booted = booted
        self._platform = platform
        self.host_line = host_line
        self._keys: dict[str, list[PublicKey]] = {}
        self._given: dict[str, list[PublicKey]] = {}  # by MAC, what a node got when it asked
        self._asking: dict[str, DeferredLock] = {}  # by MAC: one question at a time
        self._at_once = DeferredSemaphore(AT_ONCE)

    async def load(self) -> None:
        """Read the keys, and follow the owners of nodes from now on."""
        for user, key in await self._store.load():
            self._keys.setdefault(user, []).append(key)
        self._registry.observe(self._follow)

    def of(self, user: str) -> list[PublicKey]:
        """Return the keys of a user, oldest first."""
        return list(self._keys.get(user, ()))

    def of_node(self, ip: str | None) -> list[PublicKey]:
        """Return the keys that the node of an address shall have: those of its owner."""
        node = self._registry.by_ip(ip) if ip is not None else None
        if node is None or not node.is_node or node.owner in (None, PLATFORM_USER):
            return []
        keys = self._given[node.mac] = self.of(node.owner or "")
        return keys

    def on_status(self, mac: str, booted: bool, cause: str | None) -> None:
        """A node is booted: keys that changed after it asked for them are still to come."""
        node = self._registry.get(mac)
        if not booted:
            self._given.pop(mac, None)
        elif node is not None and self._given.get(mac, []) != self.of(node.owner or ""):
            spawn(self._tell_missed([node]), "keys of users on a node that booted")

    def forget(self, mac: str) -> None:
        """A node was removed."""
        self._given.pop(mac, None)
        self._asking.pop(mac, None)

    @unbroken
    async def add(self, user: str, line: str) -> tuple[PublicKey, list[str], list[str]]:
        """Give a user one more key, and put it on the user's nodes that are booted.

        Returns the key, the names of the nodes that have it, and of those that could not be
        reached. Raises Invalid, Conflict or LimitExceeded.
        """
        try:
            key = parse(line)
        except ValueError as error:
            raise Invalid(str(error)) from None
        held = self._keys.setdefault(user, [])
        if any(other.text == key.text for other in held):
            raise Conflict(f"you have this key already: {key.fingerprint}")
        if len(held) >= MOST:
            raise LimitExceeded(
                f"you have {MOST} keys, which is the limit; see: walt advanced show-ssh-keys"
            )
        held.append(key)
        try:
            await self._store.add(user, key)
        except BaseException:
            held.remove(key)
            raise
        self._platform.deed("access", f"ssh key {key.fingerprint}", "added", user)
        return key, *await self._renew(self._nodes_of(user))

    @unbroken
    async def remove(self, user: str, which: str) -> tuple[PublicKey, list[str], list[str]]:
        """Take a key from a user, named by its fingerprint or its comment.

        Returns what `add` returns. Raises NotFound or Invalid (several keys).
        """
        held = self._keys.get(user, [])
        found = [
            key for key in held
            if which in (key.fingerprint, key.fingerprint.removeprefix("SHA256:"), key.comment,
                         key.text)
        ]
        if not found:
            raise NotFound(
                f'you have no ssh key "{which[:80]}"; see: walt advanced show-ssh-keys'
            )
        if len(found) > 1:
            raise Invalid(f'several of your keys are called "{which[:80]}": give a fingerprint')
        key = found[0]
        await self._store.remove(user, key)
        if key in held:  # nobody else removed it meanwhile
            held.remove(key)
        self._platform.deed("access", f"ssh key {key.fingerprint}", "removed", user)
        return key, *await self._renew(self._nodes_of(user))

    @unbroken
    async def drop(self, user: str) -> int:
        """Take all keys from a user who may not come in any more; return how many."""
        held = list(self._keys.get(user, ()))
        for key in held:
            await self._store.remove(user, key)
        if self._keys.pop(user, None):
            spawn(self._tell_missed(self._nodes_of(user)), "taking keys from nodes")
        return len(held)

    def _nodes_of(self, user: str) -> list[Device]:
        return [node for node in self._registry.nodes() if node.owner == user]

    async def _renew(self, nodes: Iterable[Device]) -> tuple[list[str], list[str]]:
        """Have nodes ask for their keys; return names of those that did, and did not."""
        booted = [
            node for node in nodes if node.ip is not None and self._booted.is_booted(node.mac)
        ]
        done = await DeferredList(
            [Deferred.fromCoroutine(self._ask(node)) for node in booted]
        )
        reached = [node.name for node, (_, ok) in zip(booted, done, strict=True) if ok]
        missed = [node.name for node, (_, ok) in zip(booted, done, strict=True) if not ok]
        return sorted(reached), sorted(missed)

    async def _ask(self, node: Device) -> bool:
        async with self._asking.setdefault(node.mac, DeferredLock()), self._at_once:
            try:
                await self._shell.run(node.ip or "", ASK, timeout=PATIENCE)
            except WaltError:
                return False
        return True

    def _follow(self, changes: Iterable[Change]) -> None:
        """See which of these devices have another owner; their nodes ask again."""
        changed = []
        told: dict[tuple[str | None, str | None], bool] = {}  # of thousands, few are different
        for old, node in changes:
            before = None if old is None else old.image
            if node is None or node.type != "node" or before == node.image:
                continue
            key = before, node.image
            if key not in told:
                told[key] = self._matters(None if old is None else old.owner, node.owner)
            if told[key]:
                changed.append(node)
        if changed:
            spawn(self._tell_missed(changed), "keys of users on nodes with another owner")

    def _matters(self, before: str | None, now: str | None) -> bool:
        """Tell whether a node of another owner has other keys."""
        return before != now and bool(self._keys.get(before or "") or self._keys.get(now or ""))

    async def _tell_missed(self, nodes: list[Device]) -> None:
        _, missed = await self._renew(nodes)
        still = [
            name for name in missed
            if (node := self._registry.by_name(name)) is not None
            and self._booted.is_booted(node.mac)
        ]
        for name in still:
            self._platform.write(
                "access", f"node {name} did not take the ssh keys of its owner: it will when it"
                " boots again",
            )
