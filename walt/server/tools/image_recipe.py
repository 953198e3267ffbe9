"""walt-image-build-default: make and import the default image from Debian packages.

Usage: walt-image-build-default [--variant full|small] [--state-dir DIR] [--runtime-dir DIR]
                                [--cache-dir DIR] [--name USER/NAME:TAG] [--archive-only]
                                [--rebuild] [--config FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from walt.common.errors import WaltError
from walt.common.names import default_image
from walt.server.adapters.podman.options import Storage
from walt.server.config.model import Paths
from walt.server.tools import recipe as steps

Say = Callable[[str], None]


@contextmanager
def _step(say: Say, title: str) -> Iterator[None]:
    say(f"{title}… ")
    start = time.monotonic()
    yield
    say(f"done in {time.monotonic() - start:.1f} s\n")


def archive_path(cache: Path, recipe: steps.Recipe) -> Path:
    """Return where the finished tree of a recipe is cached."""
    return cache / "default-images" / f"{steps.MODEL}-{recipe.variant}-{recipe.digest()}.tar"


def build_archive(recipe: steps.Recipe, archive: Path, say: Say) -> None:
    """Make the archive of a recipe, step by step; raises WaltError."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="walt-recipe-", dir=archive.parent) as directory:
        work = Path(directory)
        work.chmod(0o755)  # apt's own user reads there
        root = work / "root"
        with _step(say, f"Debian packages ({len(recipe.packages)} and what they need)"):
            steps.bootstrap(recipe, root)
        with _step(say, "Kernel and modules"):
            version = steps.install_kernel(recipe, root, work)
            steps.finish_tree(recipe, root)
            steps.depmod(root / "bin" / "busybox", root, version)
            if os.path.lexists(root / "usr" / "sbin" / "depmod"):
                # kmod reads binary indexes, much faster than the text ones
                steps.run(["chroot", str(root), "/usr/sbin/depmod", version])
        with _step(say, "Initial RAM file system"):
            steps.make_initrd(recipe, root, work, version)
        with _step(say, "Archive"):
            steps.pack(root, archive)


def import_archive(archive: Path, recipe: steps.Recipe, storage: Storage, name: str) -> None:
    """Make the image `name` (`user/name:tag`) of an archive, with its labels."""
    if storage.root is not None and storage.runroot is not None:
        storage.root.mkdir(parents=True, exist_ok=True)
        storage.runroot.mkdir(parents=True, exist_ok=True)
    steps.run(storage.podman(
        "import", "--quiet",
        "--change", f"LABEL walt.node.models={steps.MODEL}",
        "--change", f"LABEL walt.image.preferred-name={recipe.preferred_name}",
        "--change", 'CMD ["/bin/sh"]',
        "--", str(archive), f"docker.io/{name}",
    ))


def build(
    variant: str, storage: Storage | None, cache: Path, say: Say, *,
    name: str = default_image(steps.MODEL), rebuild: bool = False,
) -> Path:
    """Build the archive of `variant` unless cached, import it; return the archive's path.

    `storage` None imports nothing. Raises WaltError.
    """
    recipe = steps.Recipe.load(variant)
    archive = archive_path(cache, recipe)
    if rebuild or not archive.exists():
        build_archive(recipe, archive, say)
    else:
        say(f"Using {archive}\n")
    if storage is not None:
        with _step(say, f"Import as {name}"):
            import_archive(archive, recipe, storage, name)
    return archive


def _options(words: Sequence[str]) -> argparse.Namespace:
    paths = Paths()
    parser = argparse.ArgumentParser(
        prog="walt-image-build-default",
        description="Make the default image of PC nodes from Debian packages.",
    )
    parser.add_argument("--variant", choices=steps.VARIANTS, default="full")
    parser.add_argument("--name", default=default_image(steps.MODEL), help="user/name:tag")
    parser.add_argument("--config", type=Path, help="server.conf that names the directories")
    parser.add_argument("--state-dir", type=Path, default=paths.state)
    parser.add_argument("--runtime-dir", type=Path, default=paths.runtime)
    parser.add_argument("--cache-dir", type=Path, default=paths.cache)
    parser.add_argument("--system-storage", action="store_true", help="use podman's own storage")
    parser.add_argument("--archive-only", action="store_true", help="import nothing")
    parser.add_argument("--rebuild", action="store_true", help="ignore the cached archive")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _options(sys.argv[1:] if words is None else words)

    def say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    storage: Storage | None = Storage.private(options.state_dir, options.runtime_dir)
    if options.system_storage:
        storage = Storage()
    if options.archive_only:
        storage = None
    start = time.monotonic()
    try:
        build(
            options.variant, storage, options.cache_dir, say, name=options.name,
            rebuild=options.rebuild,
        )
    except WaltError as error:
        say("failed\n")
        print(f"walt-image-build-default: {error}", file=sys.stderr)
        return error.exit_status
    say(f"Finished in {time.monotonic() - start:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
