"""Images in one file: a tar archive of an OCI image layout (OCI image-spec 1.0, image-layout.md).

Beside what the specification asks for, an index comes first, then manifests, then configurations,
then layers, and no layer is compressed. So each piece is known before it comes, a layer is what the
configuration says of it, and nothing grows when it is read. The identity of an image is the SHA-256
of its configuration, which lists the SHA-256 of its layers (config.md, `rootfs.diff_ids`).
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile

from walt.common.archives import UNREADABLE, BoundedMember, members
from walt.common.errors import Invalid, LimitExceeded, in_words

TYPE_CHECKING = False  # importing typing costs the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from typing import IO, Any

LAYOUT, INDEX, BLOBS = "oci-layout", "index.json", "blobs/sha256"
LAYOUT_TEXT = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME = "org.opencontainers.image.ref.name"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MOST_IMAGES, MOST_LAYERS = 64, 512  # of an archive; of an image
LARGEST_TEXT = 4 << 20  # bytes of an index, a manifest or a configuration
LARGEST = 32 << 30  # bytes of an archive
PIECE = 1 << 20
_BLOB = re.compile(rf"{BLOBS}/([0-9a-f]{{64}})")
_ID = re.compile(r"[0-9a-f]{64}")


class _Whole(Exception):
    """All that was wanted has come."""


def is_image_id(text: object) -> bool:
    """Tell whether something may be the identity of an image: 64 hexadecimal digits."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def digest_of(descriptor: Any) -> tuple[str, int]:
    """Return the SHA-256 and the size that a descriptor tells. Raises Invalid."""
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    size = descriptor.get("size") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or not is_image_id(digest.removeprefix("sha256:")) \
            or not digest.startswith("sha256:") or type(size) is not int \
            or not 0 <= size <= LARGEST:
        raise Invalid("it tells of a content without its SHA-256 and its size")
    return digest[7:], size


def load(data: bytes, what: str) -> dict[str, Any]:
    """Return the object that a JSON text is. Raises Invalid."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Invalid(f"{what} makes no sense")
    return found


def manifest(config: tuple[str, int], layers: Iterable[tuple[str, int]]) -> bytes:
    """Return the manifest of an image: SHA-256 and size of its configuration and layers."""
    def descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}

    return json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": descriptor(CONFIG_TYPE, *config),
        "layers": [descriptor(LAYER_TYPE, *layer) for layer in layers],
    }).encode()


def index(manifests: Mapping[str, bytes]) -> bytes:
    """Return the index of manifests, by what people call the images."""
    return json.dumps({"schemaVersion": 2, "manifests": [
        {
            "mediaType": MANIFEST_TYPE, "digest": f"sha256:{hashlib.sha256(text).hexdigest()}",
            "size": len(text), "annotations": {REF_NAME: name},
        } for name, text in manifests.items()
    ]}).encode()


class Reading:
    """Takes the members of an archive as they come, and refuses what does not belong there.

    `images` has the layers of each image, lowest first, by its identity, once its configuration
    has come. `sink` opens what becomes of a blob, by its SHA-256 (None: nothing is kept). The
    archive has `largest` bytes at most, each text of it `largest_text`.
    """

    def __init__(
        self, sink: Callable[[str], IO[bytes]] | None = None, *, largest: int = LARGEST,
        largest_text: int = LARGEST_TEXT,
    ) -> None:
        self.images: dict[str, list[str]] = {}
        self.manifests: dict[str, bytes] = {}  # by the identity of the image
        self._sink = sink
        self._largest, self._largest_text = largest, largest_text
        self._seen: set[str] = set()
        self._size = 0
        self._manifests: dict[str, int] = {}  # what is still to come, with its size
        self._configs: dict[str, tuple[int, bytes, list[str]]] = {}
        self._layers: dict[str, int] = {}
        self._indexed = False

    def all(self, stream: Any, *, heads: bool = False) -> None:
        """Read a whole archive; with `heads`, only until all images are known.

        Raises Invalid, LimitExceeded, and what reading raises.
        """
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=BoundedMember) as archive:
                for member in members(archive):
                    self._add(archive, member)
                    if heads and self._indexed and not self._manifests and not self._configs:
                        raise _Whole
        except _Whole:
            return
        except (tarfile.TarError, EOFError, *UNREADABLE) as error:
            raise Invalid(f"it cannot be read: {in_words(error)}") from None
        if not self._indexed:
            raise Invalid("it has no index of images")
        if self._manifests or self._configs or self._layers:
            missing = next(iter([*self._manifests, *self._configs, *self._layers]))
            raise Invalid(f"it is not whole: the content {missing[:12]} is missing")

    def _add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = member.name
        if member.isdir() and name in ("blobs", BLOBS):
            return
        blob = _BLOB.fullmatch(name)
        if not member.isreg() or (blob is None and name not in (LAYOUT, INDEX)):
            raise Invalid(f"it holds {name[:80]!r}, which no archive of images does")
        if name in self._seen:
            raise Invalid(f"it holds {name[:80]!r} twice")
        self._seen.add(name)
        self._size += member.size
        if self._size > self._largest:
            raise LimitExceeded(f"it is larger than {self._largest >> 30} GiB")
        if blob is None:
            data = self._text(archive, member)
            if name == INDEX:
                self._index(data)
        elif blob[1] in self._manifests:
            self._manifest(blob[1], self._text(archive, member))
        elif blob[1] in self._configs:
            self._config(blob[1], self._text(archive, member))
        elif blob[1] in self._layers:
            self._expect(self._layers.pop(blob[1]), member)
            self._copy(blob[1], archive, member)
        else:
            raise Invalid(f"it holds {name[:80]!r}, which none of its images has")

    @staticmethod
    def _expect(size: int, member: tarfile.TarInfo) -> None:
        if size != member.size:
            raise Invalid(f"{member.name} has {member.size} bytes in place of {size}")

    def _text(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        if member.size > self._largest_text:
            raise LimitExceeded(f"{member.name} is larger than {self._largest_text >> 20} MiB")
        source = archive.extractfile(member)
        assert source is not None
        data = source.read(member.size)
        if len(data) != member.size:
            raise Invalid("it is cut")
        return data

    def _copy(self, digest: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        source, state, left = archive.extractfile(member), hashlib.sha256(), member.size
        assert source is not None
        target = None if self._sink is None else self._sink(digest)
        try:
            while left:
                data = source.read(min(PIECE, left))
                if not data:
                    raise Invalid("it is cut")
                left -= len(data)
                state.update(data)
                if target is not None:
                    target.write(data)
        finally:
            if target is not None:
                target.close()
        if state.hexdigest() != digest:
            raise Invalid(f"{member.name} has another content than its name says")

    def _keep(self, digest: str, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != digest:
            raise Invalid(f"{BLOBS}/{digest} has another content than its name says")
        if self._sink is not None:
            with self._sink(digest) as target:
                target.write(data)

    def _index(self, data: bytes) -> None:
        found = load(data, INDEX).get("manifests")
        if not isinstance(found, list) or not 0 < len(found) <= MOST_IMAGES:
            raise Invalid(f"its index has not from 1 to {MOST_IMAGES} images")
        self._manifests = dict(map(digest_of, found))
        self._indexed = True

    def _manifest(self, digest: str, data: bytes) -> None:
        if len(data) != self._manifests.pop(digest):
            raise Invalid(f"the manifest {digest[:12]} has another size than the index says")
        self._keep(digest, data)
        found = load(data, "a manifest")
        layers = found.get("layers")
        if not isinstance(layers, list) or len(layers) > MOST_LAYERS:
            raise Invalid(f"a manifest has not up to {MOST_LAYERS} layers")
        told = [digest_of(layer) for layer in layers]
        config, size = digest_of(found.get("config"))
        self._configs[config] = size, data, [layer for layer, _ in told]
        self._layers.update(told)

    def _config(self, digest: str, data: bytes) -> None:
        size, text, layers = self._configs.pop(digest)
        if len(data) != size:
            raise Invalid(f"the configuration {digest[:12]} has another size than is told")
        self._keep(digest, data)
        contents = contents_of(load(data, "a configuration"))
        if contents != layers:
            raise Invalid(f"the layers of the image {digest[:12]} are not those that it tells")
        self.images[digest], self.manifests[digest] = layers, text


def contents_of(config: Mapping[str, Any]) -> list[str]:
    """Return the SHA-256 of the uncompressed layers that a configuration tells. Raises Invalid."""
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or not all(
        isinstance(digest, str) and digest.startswith("sha256:") and is_image_id(digest[7:])
        for digest in found
    ):
        raise Invalid("a configuration does not tell its layers")
    return [digest[7:] for digest in found]


def lacking(wanted: Collection[str], reading: Reading) -> list[str]:
    """Return the identities that an archive does not have."""
    return sorted(set(wanted) - reading.images.keys())
