"""walt-image-build-default: make and import the default image from Debian packages.

Usage: walt-image-build-default [--variant full|small|arm64|rpi-4-b]
                                [--state-dir DIR] [--runtime-dir DIR] [--cache-dir DIR]
                                [--name USER/NAME:TAG] [--archive-only]
                                [--rebuild] [--config FILE]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from walt.common.errors import WaltError
from walt.common.files import rename_durable
from walt.common.names import default_image
from walt.server.adapters.podman.options import Storage
from walt.server.adapters.volumes.images import open_images
from walt.server.config.load import load
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
    name = f"{recipe.model}-{recipe.variant}-{recipe.digest()}.tar"
    return cache / "default-images" / name


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
            steps.depmod_image(recipe, root, version)
        with _step(say, "Initial RAM file system"):
            steps.make_initrd(recipe, root, work, version)
        with _step(say, "Archive"):
            steps.pack(root, work / archive.name)
            # That it is there is all that is looked at later.
            rename_durable(work / archive.name, archive)


def import_archive(archive: Path, recipe: steps.Recipe, storage: Storage, name: str) -> None:
    """Make the image `name` (`user/name:tag`) of an archive, with its labels."""
    if storage.root is not None and storage.runroot is not None:
        storage.protect()
        storage.root.mkdir(exist_ok=True)
        storage.runroot.mkdir(parents=True, exist_ok=True)
    steps.run(storage.podman(
        "import", "--quiet",
        *(["--arch", recipe.architecture] if recipe.architecture != steps.machine() else []),
        "--change", f"LABEL walt.node.models={recipe.model}",
        "--change", f"LABEL walt.image.preferred-name={recipe.preferred_name}",
        "--change", 'CMD ["/bin/sh"]',
        "--", str(archive), f"docker.io/{name}",
    ))


def build(
    variant: str, storage: Storage | None, cache: Path, say: Say, *,
    name: str | None = None, rebuild: bool = False,
) -> Path:
    """Build the archive of `variant` unless cached, import it; return the archive's path.

    `storage` None imports nothing; `name` None is the default image of its model.
    Raises WaltError.
    """
    recipe = steps.Recipe.load(variant)
    name = name or default_image(recipe.model)
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
    parser = argparse.ArgumentParser(
        prog="walt-image-build-default",
        description="Make the default image of a model of nodes from Debian packages: PCs,"
        " virtual machines of arm64, or Raspberry Pis.",
    )
    parser.add_argument("--variant", choices=steps.VARIANTS, default="full")
    parser.add_argument("--name", help="user/name:tag; else the default image of its model")
    parser.add_argument("--config", type=Path, help="server.conf that names the directories")
    parser.add_argument("--state-dir", type=Path)
    parser.add_argument("--runtime-dir", type=Path)
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--system-storage", action="store_true", help="use podman's own storage")
    parser.add_argument("--archive-only", action="store_true", help="import nothing")
    parser.add_argument("--rebuild", action="store_true", help="ignore the cached archive")
    return parser.parse_args(words)


def _places(options: argparse.Namespace) -> tuple[Paths, bool]:
    """Return the directories to use, and whether podman's own storage is wanted."""
    paths, system = Paths(), options.system_storage
    if options.config is not None:
        config = load(options.config)
        paths, system = config.paths, system or config.images.storage == "system"
    return Paths(
        options.state_dir or paths.state, options.runtime_dir or paths.runtime,
        options.cache_dir or paths.cache, paths.log,
    ), system


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _options(sys.argv[1:] if words is None else words)

    def say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    start = time.monotonic()
    try:
        paths, system = _places(options)
        storage: Storage | None = Storage() if system else Storage.private(
            paths.state, paths.runtime
        )
        if options.archive_only:
            storage = None
        elif not system:
            open_images(paths.state, lambda text: say(f"{text}\n"), storage=True)
        build(
            options.variant, storage, paths.cache, say, name=options.name,
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
