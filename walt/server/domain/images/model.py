"""An image as a value, and the rules on its labels (spec server §5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from walt.common.models import compact_models
from walt.common.names import default_image, image_user, is_image_name, is_model, short_image_name

MODELS_LABEL = "walt.node.models"
PREFERRED_NAME_LABEL = "walt.image.preferred-name"
MIN_VERSION_LABEL = "walt.server.minversion"
MAX_LAYERS = 128  # an image with that many is not editable: squash it first
DEFAULT_MIN_VERSION = 4


@dataclass(frozen=True)
class StoredImage:
    """One name of an image of the store.

    `fullname` is `user/name:tag`; `image_id` has 64 hexadecimal digits; `layers`
    are its layer directories, top first, relative to the storage's `overlay`
    directory; `created_ts` is in epoch seconds, `size_kib` in KiB. `contents` are
    the checksums of its uncompressed layers, lowest first (OCI: `diff_ids`).
    """

    fullname: str
    image_id: str
    digest: str = ""
    created_ts: float = 0.0
    size_kib: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """The user whose working set it is in."""
        return image_user(self.fullname)

    @property
    def models(self) -> tuple[str, ...]:
        """The node models it boots on, in the order of its label."""
        return parse_models(self.labels.get(MODELS_LABEL, ""))

    @property
    def models_text(self) -> str:
        """Its models in compact notation."""
        return compact_models(self.models)

    def row(self, in_use: bool) -> dict[str, Any]:
        """Return it as programs get it, by `walt image show --json` and the web API.

        `created` is in epoch seconds, `size` in bytes.
        """
        name = short_image_name(self.fullname)
        return {
            "name": name, "fullname": self.fullname, "user": self.user, "id": self.image_id,
            "digest": self.digest, "created": self.created_ts, "size": self.size_kib * 1024,
            "in_use": in_use, "compatibility": list(self.models),
            "clonable_link": f"walt:{self.user}/{name}",
        }

    @property
    def editable(self) -> bool:
        """Whether another layer may be added."""
        return len(self.layers) < MAX_LAYERS

    @property
    def preferred_name(self) -> str | None:
        """The name that users' clones of a default image get, if the label is valid."""
        name = self.labels.get(PREFERRED_NAME_LABEL, "")
        return name if is_image_name(name) else None

    @property
    def min_version(self) -> int:
        """The oldest server version that can use it; values below 1 do not count."""
        try:
            version = int(self.labels.get(MIN_VERSION_LABEL, DEFAULT_MIN_VERSION))
        except ValueError:
            return DEFAULT_MIN_VERSION
        return version if version >= 1 else DEFAULT_MIN_VERSION

    def boots_on(self, model: str) -> bool:
        """Tell whether nodes of `model` can boot it."""
        return model in self.models

    def is_default_of(self, model: str) -> bool:
        """Tell whether it is the default image of `model`."""
        return self.fullname == default_image(model)


class ContainerOptions(NamedTuple):
    """How a container of an image is started.

    `init` is the program that boots the operating system of the image in it (None:
    nothing runs but what is asked for); `cpuinfo` replaces /proc/cpuinfo. With `outside` it
    reaches the outside, though not the server; without, no network.
    """

    init: str | None = None
    cpuinfo: bytes | None = None
    outside: bool = False


@dataclass(frozen=True)
class Credentials:
    """A user name and a password (or token) for a registry; never shown."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class RemoteImage:
    """An image of a registry: full name there, labels, creation in epoch seconds."""

    fullname: str
    labels: Mapping[str, str] = field(default_factory=dict)
    created_ts: float = 0.0


class RegistryInfo(NamedTuple):
    """A place images can be cloned from.

    `kind` is hub, registry or daemon; `authenticated`: it has user accounts;
    `repository` replaces the user part of names (JFrog); `reading`: credentials are
    needed to read, too.
    """

    label: str
    description: str
    kind: str = "registry"
    authenticated: bool = False
    repository: str | None = None

    @property
    def reading(self) -> bool:
        """Whether reading needs credentials; the Hub is read anonymously."""
        return self.authenticated and self.kind != "hub"


def parse_models(label: str) -> tuple[str, ...]:
    """Return the valid model names of a comma-separated label, without repetition."""
    names = (word.strip() for word in label.split(","))
    return tuple(dict.fromkeys(name for name in names if is_model(name)))
