"""An image of nodes with Python and an OpenSSH server, beside the dropbear of the small one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from walt.server.adapters.podman.options import Storage
from walt.server.adapters.volumes.images import open_images
from walt.server.tools import recipe as steps
from walt.server.tools.image_recipe import archive_path, build_archive, import_archive

ADDED = ("openssh-server", "openssh-sftp-server", "python3")
NAME = "waltplatform/pc-x86-64-default:latest"
# For an image made of it whose ssh server is OpenSSH's: files by path.
OPENSSH = {
    "/etc/inittab": "::sysinit:/etc/init.d/rcS\n::respawn:/usr/local/bin/serve\n"
                    "console::respawn:-/bin/sh\n::ctrlaltdel:/sbin/reboot\n",
    "/usr/local/bin/serve": "#!/bin/sh\nmkdir -p /run/sshd\nexec /usr/sbin/sshd -D -e\n",
    "/etc/ssh/sshd_config": "HostKey /etc/ssh/ssh_host_ecdsa_key\nUsePAM no\n"
                            "Subsystem sftp /usr/lib/openssh/sftp-server\n",
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
                   "sshd:x:100:65534:sshd:/run/sshd:/bin/false\n"
                   "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
}


def main(cache: Path, state: Path, runtime: Path) -> None:
    """Import the image as the default one of PCs; its tree is kept in `cache`."""
    small = steps.Recipe.load("small")
    recipe = replace(small, packages=(*small.packages, *ADDED))
    archive = archive_path(cache, small)
    archive = archive.with_name(archive.name.replace("-small-", "-python-"))
    if not archive.exists():
        build_archive(recipe, archive, lambda text: None)
    open_images(state, lambda text: None, storage=True)
    import_archive(archive, recipe, Storage.private(state, runtime), NAME)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
