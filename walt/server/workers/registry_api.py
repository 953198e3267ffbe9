"""Reading registries over HTTP (OCI distribution specification 1.0): blocking, in workers.

Catalogue and tags with paging, manifests, labels; basic and token authentication.
"""

from __future__ import annotations

import base64
import contextlib
import re
import ssl
import time
from collections.abc import Iterator
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urljoin, urlsplit
from urllib.request import HTTPSHandler, Request, build_opener

from walt.common.errors import Denied, NotFound, Unavailable, in_words
from walt.common.texts import load_json
from walt.server.workers.main import Progress

PATIENCE = 10.0  # seconds for one request
TRIES = 3
MAX_BODY = 8 << 20
MEMORY = 1 << 30  # bytes of address space for a job
PAGE = 500
MODELS_LABEL = "walt.node.models"
HUB = "https://hub.docker.com/"
MANIFESTS = ", ".join((
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
))
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class Client:
    """One registry. `arguments`: base, verify, ca_directory, host, username, password."""

    def __init__(self, arguments: dict[str, Any], limit: float) -> None:
        self._base: str = arguments["base"]
        self._end = time.monotonic() + limit
        self._basic = _basic(arguments)
        self._authorization: dict[str, str] = {}
        context = ssl.create_default_context()
        for file in sorted(Path(arguments["ca_directory"]).glob("*.crt")):
            context.load_verify_locations(file)
        if not arguments["verify"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._opener = build_opener(HTTPSHandler(context=context))

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._end

    def get(self, path: str, accept: str = "application/json") -> tuple[Message, dict[str, Any]]:
        """Return headers and the JSON object at a path; Denied, NotFound or Unavailable."""
        scope = path.split("?")[0]
        for attempt in range(TRIES):
            try:
                return self._once(urljoin(self._base, path), accept, scope)
            except HTTPError as error:
                if error.code < 500 or attempt == TRIES - 1:
                    raise _translated(error) from None
            except (URLError, OSError, ValueError, HTTPException) as error:
                if attempt == TRIES - 1 or self.late:
                    cause = getattr(error, "reason", None)
                    why = in_words(cause if isinstance(cause, BaseException) else error)
                    raise Unavailable(f"no proper answer ({why})") from None
        raise AssertionError

    def _once(self, url: str, accept: str, scope: str) -> tuple[Message, dict[str, Any]]:
        authorization = self._authorization.get(scope)
        try:
            return self._request(url, accept, authorization)
        except HTTPError as error:
            challenge = error.headers.get("WWW-Authenticate", "")
            if error.code != 401 or authorization is not None or not challenge:
                raise
        self._authorization[scope] = self._answer(challenge)
        return self._request(url, accept, self._authorization[scope])

    def _request(
        self, url: str, accept: str, authorization: str | None
    ) -> tuple[Message, dict[str, Any]]:
        request = Request(  # noqa: S310 (http or https: from server.conf, or checked)
            url, headers={"Accept": accept, "User-Agent": "walt"}
        )
        if authorization is not None:
            # Not sent on to where a blob may be redirected.
            request.add_unredirected_header("Authorization", authorization)
        patience = max(0.1, min(PATIENCE, self._end - time.monotonic()))
        with self._opener.open(request, timeout=patience) as response:
            # Some registries answer `true` at the root of the API.
            return response.headers, _mapping(load_json(self._body(response)))

    def _body(self, response: HTTPResponse) -> bytes:
        """Return the body of an answer, however slowly it comes. Raises ValueError, OSError."""
        pieces, size = [], 0
        while piece := response.read1(1 << 16):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY:
                raise ValueError("an answer is too long")
            if self.late:
                raise TimeoutError("it answers too slowly")
        return b"".join(pieces)

    def _answer(self, challenge: str) -> str:
        """Return the authorization that a challenge asks for (RFC 6750, RFC 7617)."""
        kind = challenge.split(" ", 1)[0].lower()
        if kind == "basic":
            if self._basic is None:
                raise Denied("it wants a user name and a password")
            return self._basic
        values = dict(_CHALLENGE.findall(challenge))
        realm = values.pop("realm", "")
        secure = urlsplit(realm).scheme == "https" or urlsplit(self._base).scheme == "http"
        if kind != "bearer" or urlsplit(realm).scheme not in ("http", "https"):
            raise Unavailable(f"it asks for an unknown authentication ({kind[:20]})")
        query = urlencode({name: values[name] for name in ("service", "scope") if name in values})
        _, answer = self._request(
            f"{realm}?{query}", "application/json", self._basic if secure else None
        )
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str):
            raise Denied("it gave no token")
        return f"Bearer {token}"

    def pages(self, path: str, key: str) -> Iterator[str]:
        """Yield the texts of a list that may have several pages."""
        seen = set()
        while path and path not in seen and not self.late:
            seen.add(path)
            headers, answer = self.get(path)
            for text in _list(answer.get(key)):
                if isinstance(text, str):
                    yield text
            path = self._next(headers.get("Link", ""))

    def _next(self, link: str) -> str:
        match = re.match(r'\s*<([^>]+)>\s*;\s*rel="?next"?', link)
        if match is None:
            return ""
        try:
            url = urlsplit(urljoin(self._base, match[1]))
        except ValueError:
            return ""
        return f"{url.path}?{url.query}"  # on the same host, whatever the link says

    def config(self, repository: str, tag: str) -> dict[str, Any]:
        """Return the configuration of an image: labels, date of creation."""
        place = f"/v2/{quote(repository)}"
        _, manifest = self.get(f"{place}/manifests/{quote(tag)}", MANIFESTS)
        if manifest.get("manifests"):
            first = _mapping(next(iter(_list(manifest["manifests"])), None))
            _, manifest = self.get(f"{place}/manifests/{_digest(first)}", MANIFESTS)
        _, config = self.get(f"{place}/blobs/{_digest(_mapping(manifest.get('config')))}")
        labels = _mapping(_mapping(config.get("config")).get("Labels"))
        created = config.get("created")
        return {
            "labels": {name: text for name, text in labels.items() if isinstance(text, str)},
            "created": created if isinstance(created, str) else "",
        }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _digest(descriptor: dict[str, Any]) -> str:
    """Return the digest of a descriptor, for a URL; NotFound without any."""
    digest = descriptor.get("digest")
    if not isinstance(digest, str):
        raise NotFound("it has a manifest without digests")
    return quote(digest)


def _basic(arguments: dict[str, Any]) -> str | None:
    user, password = arguments.get("username"), arguments.get("password")
    if user is None:
        return None
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _translated(error: HTTPError) -> Exception:
    if error.code in (401, 403):
        return Denied(f"it refuses access (HTTP {error.code})")
    if error.code == 404:
        return NotFound("it has no such thing (HTTP 404)")
    return Unavailable(f"it answers HTTP {error.code}")


def login(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Return when the registry accepts the credentials; Denied or Unavailable."""
    Client(arguments, 3 * PATIENCE).get("/v2/")
    return {}


def search(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Return `images` (fullname, labels, created) that have models, and `complete`.

    `repository` narrows the catalogue (JFrog); `limit` is in seconds.
    """
    client = Client(arguments, arguments["limit"])
    found: list[dict[str, Any]] = []
    prefix = f"/{arguments['repository']}" if arguments.get("repository") else ""
    for repository in client.pages(f"/v2{prefix}/_catalog?n={PAGE}", "repositories"):
        name = f"{prefix[1:]}/{repository}" if prefix else repository
        if name.count("/") == 1:
            _add_tags(client, name, found)
    return {"images": found, "complete": not client.late}


def _add_tags(client: Client, repository: str, found: list[dict[str, Any]]) -> None:
    # One broken repository (no tag left, unreadable manifest) does not hide the others.
    with contextlib.suppress(NotFound):
        for tag in client.pages(f"/v2/{quote(repository)}/tags/list?n={PAGE}", "tags"):
            if client.late:
                return
            with contextlib.suppress(NotFound):
                config = client.config(repository, tag)
                if config["labels"].get(MODELS_LABEL) or repository.endswith("/walt_metadata"):
                    found.append({"fullname": f"{repository}:{tag}", **config})


def hub_users(arguments: dict[str, Any], progress: Progress) -> list[str]:
    """Return the users of the Docker Hub that have an index image."""
    client = Client({**arguments, "base": HUB}, arguments["limit"])
    users, page = set[str](), 1
    while not client.late:
        query = urlencode({"query": "walt_metadata", "page_size": 100, "page": page})
        _, answer = client.get(f"{HUB}v2/search/repositories/?{query}")
        for repository in map(_mapping, _list(answer.get("results"))):
            user, _, name = str(repository.get("repo_name", "")).partition("/")
            if name == "walt_metadata":
                users.add(user)
        if not answer.get("next"):
            break
        page += 1
    return sorted(users)


def account(arguments: dict[str, Any], progress: Progress) -> list[dict[str, Any]]:
    """Return the images (fullname, labels) of the Docker Hub account `user`."""
    hub = Client({**arguments, "base": HUB}, arguments["limit"])
    registry = Client(arguments, arguments["limit"])
    found: list[dict[str, Any]] = []
    path = f"v2/repositories/{quote(arguments['user'])}/?page_size=100"
    while path and not hub.late:
        _, answer = hub.get(path)
        for repository in map(_mapping, _list(answer.get("results"))):
            _add_tags(registry, f"{arguments['user']}/{repository.get('name')}", found)
        query = _query(answer.get("next"))
        path = query and f"v2/repositories/{quote(arguments['user'])}/?{query}"
    return found


def _query(url: Any) -> str:
    """Return the part of a URL behind its question mark, empty for what is none."""
    try:
        return urlsplit(url).query if isinstance(url, str) else ""
    except ValueError:
        return ""
