"""Rules for names (spec user-surface §1.4, server §3.2-3.3)."""

import re
import sys

DEVICE_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*[a-zA-Z0-9]")  # a label of RFC 1123
# Parts of a repository's name begin and end with a letter or a digit (OCI distribution
# specification, "Pulling manifests").
_PART = "[a-z0-9]+(-+[a-z0-9]+)*"
USER_NAME = re.compile(_PART)
IMAGE_NAME = re.compile(rf"{_PART}(:[a-z0-9][a-z0-9-]*)?")
CHECKPOINT_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-]+")
MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
MODEL = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

PLATFORM_USER = "waltplatform"
MAX_NAME = 63  # a device name is a DNS label (RFC 1035)


def is_device_name(text: str) -> bool:
    """Tell whether `text` may name a device: letters, digits, dashes inside; a letter first."""
    return len(text) <= MAX_NAME and DEVICE_NAME.fullmatch(text) is not None


def is_mac(text: str) -> bool:
    """Tell whether `text` is a lower-case, colon-separated MAC address."""
    return MAC.fullmatch(text) is not None


def is_model(text: str) -> bool:
    """Tell whether `text` may name a node model (an open list, never hard-coded)."""
    return MODEL.fullmatch(text) is not None


def is_user_name(text: str) -> bool:
    """Tell whether `text` may be a WalT user: what image names allow (Q-10)."""
    return len(text) <= MAX_NAME and USER_NAME.fullmatch(text) is not None


def is_image_name(text: str) -> bool:
    """Tell whether `text` may name an image of a working set, with or without tag."""
    return (
        len(text) <= 200
        and IMAGE_NAME.fullmatch(text) is not None
        and text.split(":")[0] != "default"
    )


def is_checkpoint_name(text: str) -> bool:
    """Tell whether `text` may name a moment of the logs."""
    return len(text) <= MAX_NAME and CHECKPOINT_NAME.fullmatch(text) is not None


def image_fullname(user: str, name: str) -> str:
    """Return `user/name:tag`, with the implied tag `latest`."""
    return f"{user}/{name}" if ":" in name else f"{user}/{name}:latest"


def short_image_name(fullname: str) -> str:
    """Return the image name without its user and without the implied tag."""
    name = fullname.split("/", 1)[-1]
    return name[:-len(":latest")] if name.endswith(":latest") else name


def image_user(fullname: str) -> str:
    """Return the user part of an image name: the owner of the nodes booting it."""
    return sys.intern(fullname.split("/", 1)[0])  # thousands of nodes have the same owner


def default_image(model: str) -> str:
    """Return the full name of the default image of a node model."""
    return f"{PLATFORM_USER}/{model}-default:latest"


def clean_host_name(announced: str) -> str:
    """Return what remains of a host name announced by a device (it may be invalid still)."""
    return re.sub(r"[^a-zA-Z0-9-]+", "-", announced.split(".", 1)[0])
