"""Images of the server's storage, to and from a directory of the OCI image layout."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from walt.common.errors import CommandFailed
from walt.common.image_archives import BLOBS, INDEX, REF_NAME, digest_of, manifest
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.podman.skopeo import SKOPEO
from walt.server.adapters.volumes.loop import run
from walt.server.config.model import ServerConfig

_NAME = re.compile(r"docker\.io/([a-z0-9][A-Za-z0-9_.-]*/[a-z0-9][A-Za-z0-9_.-]*:[A-Za-z0-9_.-]+)")


def storage_of(config: ServerConfig) -> Storage:
    """Return the storage of a server."""
    if config.images.storage == "system":
        return Storage()
    return Storage.private(config.paths.state, config.paths.runtime)


def names(storage: Storage) -> dict[str, str]:
    """Return the ids of images by the names that WalT knows. Raises CommandFailed."""
    found = {}
    for line in run(storage.podman(
        "image", "ls", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"
    )).splitlines():
        number, _, name = line.partition(" ")
        match = _NAME.fullmatch(name)
        if match is not None:
            found[match[1]] = number.removeprefix("sha256:")
    return found


def is_image_name(text: str) -> bool:
    """Tell whether a manifest may name an image so."""
    return _NAME.fullmatch(f"docker.io/{text}") is not None


def _local(storage: Storage, name: str) -> str:
    place = "" if storage.root is None else f"[overlay@{storage.root}+{storage.runroot}]"
    return f"containers-storage:{place}docker.io/{name}"


def save(storage: Storage, name: str, layout: Path, scratch: Path) -> None:
    """Copy an image into a layout; layers that are there already are not copied again.

    Of an image with docker's formats, the copy would have another configuration, and so be another
    image: its own one is put there. Raises CommandFailed.
    """
    source = _local(storage, name)
    run([
        *SKOPEO, "--tmpdir", str(scratch), "copy", "--quiet",
        "--dest-oci-accept-uncompressed-layers", source, f"oci:{layout}:{name}",
    ])
    index = json.loads((layout / INDEX).read_text())
    (entry,) = [
        descriptor for descriptor in index["manifests"]
        if descriptor.get("annotations", {}).get(REF_NAME) == name
    ]
    former = layout / BLOBS / digest_of(entry)[0]
    found = json.loads(former.read_text())
    config = run([*SKOPEO, "inspect", "--raw", "--config", source]).encode()
    number = hashlib.sha256(config).hexdigest()
    if digest_of(found["config"])[0] == number:
        return
    layers = [digest_of(layer) for layer in found["layers"]]
    text = manifest((number, len(config)), layers)
    entry["digest"], entry["size"] = f"sha256:{hashlib.sha256(text).hexdigest()}", len(text)
    (layout / BLOBS / number).write_bytes(config)
    (layout / BLOBS / digest_of(entry)[0]).write_bytes(text)
    (layout / INDEX).write_text(json.dumps(index))


def load(storage: Storage, name: str, layout: Path, scratch: Path) -> None:
    """Copy an image from a layout into the storage."""
    run([
        *SKOPEO, "--tmpdir", str(scratch), "copy", "--quiet", f"oci:{layout}:{name}",
        _local(storage, name),
    ])


def differing(storage: Storage, wanted: Mapping[str, str]) -> list[str]:
    """Return the names whose images are not those that were saved."""
    try:
        there = names(storage)
    except CommandFailed:
        there = {}
    return sorted(name for name, number in wanted.items() if there.get(name) != number)
