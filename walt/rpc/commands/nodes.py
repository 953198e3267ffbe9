"""Commands about nodes (spec server §7.3)."""

from __future__ import annotations

from twisted.protocols import amp

from walt.rpc import rows
from walt.rpc.arguments import Float, Integer, Json, Names, Text, Texts
from walt.rpc.base import WaltCommand

SetText = Text(1 << 20)


class ShowNodes(WaltCommand):
    """Objects of `walt node show --json`: the caller's nodes, or all of them."""

    commandName = b"cs.nodes.show"
    side = "cs"
    many = True
    arguments = [(b"all", amp.Boolean())]
    response = [(b"tables", Json(rows.NODES))]


class ListNodes(WaltCommand):
    """What the tables of `walt node show` show of the same nodes, each as a list."""

    commandName = b"cs.nodes.list"
    side = "cs"
    many = True
    arguments = [(b"all", amp.Boolean())]
    response = [(b"tables", Json(rows.LISTED_NODES))]


class ExpandNodes(WaltCommand):
    """Develop a set of nodes into sorted names; errors name the faulty item."""

    commandName = b"cs.nodes.expand"
    side = "cs"
    arguments = [(b"nodes", SetText)]
    response = [(b"names", Names())]


class NodeOwnership(WaltCommand):
    """Split a set into owned, free, owned by others (`owners` tells whom), and not nodes.

    `names` are those of all nodes, keywords replaced: they mean other nodes once images have
    changed. `reservations` are those of other users, whatever they are. An `image` that the
    nodes are to boot is checked first: one of the caller, or `default`.
    """

    commandName = b"cs.nodes.ownership"
    side = "cs"
    arguments = [(b"nodes", SetText), (b"image", Text(256, optional=True))]
    response = [
        (b"names", Names()), (b"owned", Names()), (b"free", Names()), (b"others", Names()),
        (b"not_nodes", Names()), (b"owners", Texts()), (b"reservations", Json(rows.RESERVATIONS)),
    ]


class PlanWork(WaltCommand):
    """Whom work on a set of devices would disturb, or on the nodes that boot an image.

    `image` is one of the caller, `default_images` stands for those of the platform. With
    `settings` (`name=value`), which are checked as if they were to be set on the devices,
    `reboot` tells whether they take effect at the next boot only.
    """

    commandName = b"cs.nodes.plan"
    side = "cs"
    arguments = [
        (b"devices", Text(1 << 20, optional=True)), (b"image", Text(256, optional=True)),
        (b"settings", Names(optional=True)), (b"nodes_only", amp.Boolean(optional=True)),
        (b"default_images", amp.Boolean(optional=True)),
    ]
    response = [(b"rows", Json(rows.PLANS)), (b"reboot", amp.Boolean())]


class GetNodes(WaltCommand):
    """Records of the nodes of a set (spec server §3.5)."""

    commandName = b"cs.nodes.get"
    side = "cs"
    many = True
    arguments = [(b"nodes", SetText)]
    response = [(b"nodes", Json(rows.RECORDS))]


class ReserveNodes(WaltCommand):
    """Reserve `count` nodes of a set for some seconds; CONFLICT when they cannot be had now.

    `model` is a pattern as of fnmatch(3). The holder, a text of the client's choice, tells again
    every 20 s that it is there (`cs.nodes.keep_reserved`), or calls this again; without a word
    for 60 s its nodes are free.
    """

    commandName = b"cs.nodes.reserve"
    side = "cs"
    arguments = [
        (b"nodes", SetText), (b"model", Text(256)), (b"count", Integer()), (b"seconds", Float()),
        (b"holder", Text(64)),
    ]
    response = [(b"names", Names())]


class KeepReserved(WaltCommand):
    """The holder of a reservation is still there; NOT_FOUND when it is over."""

    commandName = b"cs.nodes.keep_reserved"
    side = "cs"
    arguments = [(b"holder", Text(64))]


class FreeReserved(WaltCommand):
    """End a reservation of the caller."""

    commandName = b"cs.nodes.free_reserved"
    side = "cs"
    arguments = [(b"holder", Text(64))]


class ListBoots(WaltCommand):
    """Records of the last boots of each node of a set, `count` at most, oldest first.

    With `most` (1,000 at most) it is the last ones of all those. LIMIT_EXCEEDED above 20,000.
    """

    commandName = b"cs.nodes.boots"
    side = "cs"
    many = True
    arguments = [(b"nodes", SetText), (b"count", Integer()), (b"most", Integer(optional=True))]
    response = [(b"boots", Json(rows.BOOTS))]


class CreateNode(WaltCommand):
    """Create a virtual node owned by the caller and start it."""

    commandName = b"cs.nodes.create"
    side = "cs"
    arguments = [(b"name", Text(256))]


class RemoveNode(WaltCommand):
    """Remove a virtual node and everything known about it; CONFLICT when logs would be lost.

    `force` lets them go, `keep_logs` keeps them under the name of the node.
    """

    commandName = b"cs.nodes.remove"
    side = "cs"
    arguments = [
        (b"name", Text(256)), (b"force", amp.Boolean(optional=True)),
        (b"keep_logs", amp.Boolean(optional=True)),
    ]


class SetNodesImage(WaltCommand):
    """Associate nodes with an image of the caller, or `default`."""

    commandName = b"cs.nodes.set_image"
    side = "cs"
    arguments = [(b"nodes", SetText), (b"image", Text(256))]


class BootNodes(WaltCommand):
    """Have nodes boot an image of the caller, or `default`: now. As a reboot answers.

    Nothing is changed when the image is not there, or cannot boot one of them.
    """

    commandName = b"cs.nodes.boot"
    side = "cs"
    arguments = [
        (b"nodes", SetText), (b"image", Text(256)), (b"cause", Text(100)),
        (b"client_reboots", amp.Boolean(optional=True)),
    ]
    response = [(b"ok", amp.Boolean()), (b"left", Json(rows.LEFT, optional=True))]


class RebootNodes(WaltCommand):
    """Reboot a set of nodes; `ok` is false when one could not be rebooted.

    With `client_reboots`, physical nodes that do not answer are left to the
    caller: `left` has their `name`, `mac`, and `reason` (null with `hard_only`).
    It reboots them by its own means and says so by `cs.nodes.hard_rebooted`.
    """

    commandName = b"cs.nodes.reboot"
    side = "cs"
    arguments = [
        (b"nodes", SetText), (b"hard_only", amp.Boolean()), (b"cause", Text(100)),
        (b"client_reboots", amp.Boolean(optional=True)),
    ]
    response = [(b"ok", amp.Boolean()), (b"left", Json(rows.LEFT, optional=True))]


class HardRebooted(WaltCommand):
    """Tell what became of nodes that `cs.nodes.reboot` left to the caller.

    `rebooted` has the MACs of those which restarted, `errors` why others did
    not, by MAC; `reasons` are those of `cs.nodes.reboot`; `method` is the name
    of the caller's means, for logs and reports. `ok` is false on any error.
    """

    commandName = b"cs.nodes.hard_rebooted"
    side = "cs"
    arguments = [
        (b"method", Text(60)), (b"cause", Text(100)), (b"rebooted", Names()),
        (b"errors", Texts()), (b"reasons", Texts()),
    ]
    response = [(b"ok", amp.Boolean())]


class WaitNodes(WaltCommand):
    """Answer when all nodes of the set have booted."""

    commandName = b"cs.nodes.wait"
    side = "cs"
    arguments = [(b"nodes", SetText)]


class ConsoleInput(WaltCommand):
    """Type bytes on the console of a virtual node."""

    commandName = b"cs.nodes.console_input"
    side = "cs"
    arguments = [(b"node", Text(256)), (b"data", amp.String())]


class AcquireNodes(WaltCommand):
    """Let nodes boot the caller's own copies of their default images.

    `owners` are the users whose nodes the caller agreed to take: CONFLICT if somebody else has
    one, and nothing is changed.
    """

    commandName = b"cs.nodes.acquire"
    side = "cs"
    arguments = [(b"nodes", SetText), (b"owners", Names(optional=True))]


class BlinkNode(WaltCommand):
    """Start or stop the blinking of a node's LED."""

    commandName = b"cs.nodes.blink"
    side = "cs"
    arguments = [(b"node", Text(256)), (b"on", amp.Boolean())]


class CheckNodeReachable(WaltCommand):
    """Answer when a node is booted, or answers a ping; UNAVAILABLE otherwise."""

    commandName = b"cs.nodes.check_reachable"
    side = "cs"
    arguments = [(b"node", Text(256))]


class GetPathKinds(WaltCommand):
    """What a path of a node is, and its directory: two of `f`, `d`, `o`, `-` (nothing)."""

    commandName = b"cs.nodes.path_kinds"
    side = "cs"
    arguments = [(b"node", Text(256)), (b"path", Text(4096))]
    response = [(b"kinds", Names())]


class CheckSave(WaltCommand):
    """Check the arguments of `cs.nodes.save`; `warning` is what to confirm before, if any."""

    commandName = b"cs.nodes.check_save"
    side = "cs"
    arguments = [(b"node", Text(256)), (b"image", Text(256))]
    response = [(b"warning", Text(1 << 16))]


class SaveNode(WaltCommand):
    """Make an image of what a node boots and of the files changed since it booted.

    `ok` is false when a node that boots the image could not be rebooted.
    """

    commandName = b"cs.nodes.save"
    side = "cs"
    arguments = [(b"node", Text(256)), (b"image", Text(256))]
    response = [(b"ok", amp.Boolean())]


class CheckBootedImage(WaltCommand):
    """Check that the caller may change the image a node boots; what to confirm before."""

    commandName = b"cs.nodes.check_booted_image"
    side = "cs"
    arguments = [(b"node", Text(256))]
    response = [(b"warning", Text(1 << 16))]


class CopyToBootedImage(WaltCommand):
    """Copy a path of a node to the same path of the image that it boots, and reboot its nodes."""

    commandName = b"cs.nodes.cp_to_booted_image"
    side = "cs"
    arguments = [(b"node", Text(256)), (b"path", Text(4096))]
    response = [(b"ok", amp.Boolean())]
