"""The types of the arguments of each command: what their candidates are."""

from __future__ import annotations

from walt.client.main import CATEGORIES

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from walt.client.grammar import Arg

# Types whose candidates the helper prints; most of them come from the server.
ASKED = frozenset((
    "NODE", "SET_OF_NODES", "DEVICE", "SET_OF_DEVICES", "SWITCH", "RESCAN_SET_OF_DEVICES",
    "PORT_CONFIG_PARAM", "SET_OF_ISSUERS", "IMAGE",
    "IMAGE_OR_DEFAULT", "IMAGE_CLONE_URL", "NODE_CONFIG_PARAM", "DEVICE_CONFIG_PARAM",
    "LOG_CHECKPOINT", "HISTORY_RANGE", "REGISTRY",
    "NODE_CP_SRC", "NODE_CP_DST", "IMAGE_CP_SRC", "IMAGE_CP_DST",
))
# Types that shells complete by themselves.
DIRECTORY, FILE, TOPIC = "DIRECTORY", "FILE", "TOPIC"
NOTHING = ""

_BY_NAME = {
    "archive": FILE,
    "clonable_image_link": "IMAGE_CLONE_URL",
    "device_name": "DEVICE",
    "device_set": "SET_OF_DEVICES",
    "directory": DIRECTORY,
    "file": FILE,
    "image_name": "IMAGE",
    "image_name_or_default": "IMAGE_OR_DEFAULT",
    "node_name": "NODE",
    "node_set": "SET_OF_NODES",
    "old_name": "DEVICE",
    "other_archive": FILE,
    "old_node_name": "NODE",
    "switch_name": "SWITCH",
    "topic": TOPIC,
    # What only the person knows.
    **dict.fromkeys((
        "checkpoint_name", "cmdargs", "device_port", "duration", "key", "keyword", "local_port",
        "logline_regexp", "name", "new_file", "new_image_name", "new_name", "new_node_name",
        "node_port",
        "port_id",
        "other_user", "server", "token", "word",
    ), NOTHING),
}
_BY_COMMAND = {
    ("device", "port-config", "configuration"): "PORT_CONFIG_PARAM",
    ("device", "rescan", "device_set"): "RESCAN_SET_OF_DEVICES",
    ("device", "config", "configuration"): "DEVICE_CONFIG_PARAM",
    ("image", "build", "image_name"): NOTHING,
    ("image", "clone", "image_name"): NOTHING,
    ("image", "cp", "dst"): "IMAGE_CP_DST",
    ("image", "cp", "src"): "IMAGE_CP_SRC",
    ("log", "remove-checkpoint", "checkpoint_name"): "LOG_CHECKPOINT",
    ("node", "config", "configuration"): "NODE_CONFIG_PARAM",
    ("node", "cp", "dst"): "NODE_CP_DST",
    ("node", "cp", "src"): "NODE_CP_SRC",
    ("node", "save", "image_name"): NOTHING,
}


def of_argument(category: str, subcommand: str, arg: Arg) -> str:
    """Return the type of a positional argument; KeyError when nobody decided it."""
    special = _BY_COMMAND.get((category, subcommand, arg.name))
    if special is not None:
        return special
    if category in CATEGORIES:
        return _BY_NAME[arg.name]
    return _BY_NAME.get(arg.name, arg.name.upper())  # a plugin may complete it by its hook


def of_value(metavar: str) -> str:
    """Return the type of the value of a switch."""
    return metavar if metavar in ASKED or metavar == DIRECTORY else NOTHING
