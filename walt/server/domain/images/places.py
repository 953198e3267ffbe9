"""The places images are cloned from and published to, and who may (spec server §5.6)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

from twisted.internet.defer import Deferred, gatherResults

from walt.common.errors import CredentialsNeeded, Denied, Invalid, NotFound, Unavailable
from walt.common.names import PLATFORM_USER
from walt.server.domain.images import hub
from walt.server.domain.images.links import HUB, LOCAL
from walt.server.domain.images.model import Credentials, RegistryInfo, RemoteImage
from walt.server.domain.images.interfaces import IRegistry

MAX_SECRET = 4096

Given = Mapping[str, Credentials]  # credentials of the requester, by label


def parse_credentials(value: Any) -> dict[str, Credentials]:
    """Check the credentials that a client sent, by label. Raises Invalid."""
    if not isinstance(value, dict) or len(value) > 100:
        raise Invalid("credentials are an object: label, then username and password")
    found = {}
    for label, entry in value.items():
        pair = entry if isinstance(entry, dict) else {}
        user, password = pair.get("username"), pair.get("password")
        if not (_is_secret(user) and _is_secret(password)) or ":" in user:
            raise Invalid(f"the credentials of {label[:40]!r} are not a user name and a password")
        found[label] = Credentials(user, password)
    return found


def _is_secret(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_SECRET and "\0" not in value


class Places:
    """The registries (and the docker daemon) of a server, by label."""

    def __init__(self, registries: Collection[IRegistry]) -> None:
        self._registries = {registry.info.label: registry for registry in registries}

    @property
    def locations(self) -> list[str]:
        """What links may start with."""
        return [LOCAL, *self._registries]

    def all(self) -> list[IRegistry]:
        """Return every place, in the order of the configuration."""
        return list(self._registries.values())

    def infos(self) -> list[RegistryInfo]:
        """Return the registries that images can be published to."""
        return [place.info for place in self.all() if place.info.kind != "daemon"]

    async def rows(self) -> list[dict[str, Any]]:
        """Return label and description of these registries, and what needs credentials.

        `publishing` and `reading` are false where the server's own serve.
        """

        async def row(place: IRegistry) -> dict[str, Any]:
            info: RegistryInfo = place.info
            needed = info.authenticated and await place.stored_credentials() is None
            return {
                "label": info.label, "description": info.description,
                "publishing": needed, "reading": needed and info.reading,
            }

        places = [place for place in self.all() if place.info.kind != "daemon"]
        return await gatherResults([Deferred.fromCoroutine(row(place)) for place in places])

    def get(self, label: str) -> IRegistry:
        """Return a place; NotFound with what there is."""
        try:
            return self._registries[label]
        except KeyError:
            known = ", ".join(info.label for info in self.infos()) or "none"
            raise NotFound(
                f"there is no registry {label[:40]!r} here (configured: {known})"
            ) from None

    async def inspect(self, label: str, fullname: str, given: Given) -> RemoteImage:
        """Return what an image of a place is.

        On the Docker Hub it must be in the index of its owner. Raises NotFound,
        CredentialsNeeded, Denied or Unavailable, which name the place.
        """
        place, credentials = self.get(label), given.get(label)
        with asking(place, credentials):
            if place.info.kind == HUB:
                user = fullname.split("/", 1)[0]
                if user != PLATFORM_USER:
                    index = await place.inspect(hub.index_image(user), credentials)
                    if fullname not in hub.decode(index.labels.get(hub.INDEX_LABEL, "")):
                        raise NotFound("it is not in the index of its owner")
            image: RemoteImage = await place.inspect(fullname, credentials)
            return image


@contextmanager
def asking(place: IRegistry, credentials: Credentials | None) -> Iterator[None]:
    """Add the name of the place to its errors; Denied without credentials asks for some."""
    info: RegistryInfo = place.info
    try:
        yield
    except Denied as error:
        if credentials is None and info.authenticated:
            raise CredentialsNeeded(
                f"registry {info.label} needs a user name and a password"
            ) from None
        raise Denied(f"registry {info.label}: {error}") from None
    except NotFound as error:
        raise NotFound(f"registry {info.label} has no such image ({error})") from None
    except Unavailable as error:
        raise Unavailable(f"registry {info.label}: {error}") from None
