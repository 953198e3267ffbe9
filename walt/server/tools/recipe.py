"""The steps that make a default image from Debian packages (design D12).

Everything blocks: this is the inside of a command, never run in the server.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from walt.common.errors import CommandFailed, Invalid, Unavailable
from walt.server.tools import kernel_modules

DATA = Path(str(resources.files("walt.images")))
VARIANTS = ("full", "small", "arm64", "rpi-4-b")
UBOOT_MAGIC = 0x27051956
BUSYBOX = Path("/bin/busybox")  # of this machine: for trees whose programs do not run here
# What nodes reboot by kexec with: the part of WalT that images of Python may have.
TOOLS = Path("usr/share/walt/node-tools.zip")
TOOL_MODULES = {
    "walt.common": ("__init__", "errors", "literals", "names"),
    "walt.virtual": (
        "__init__", "api", "fetch", "kexec", "namespace", "processes", "script", "sockets",
        "timing", "variables",
    ),
}

# Downloads the kernel package that a meta package depends on, beside the system:
# installing it would bring an initramfs generator that a node has no use for.
_FETCH_KERNEL = (
    'mkdir -p "$1/.kernel" && cd "$1/.kernel" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" && '
    "package=$(apt-cache depends --important KERNEL | sed -n 's/.*Depends: //p' | head -n 1) && "
    'apt-get -o APT::Sandbox::User=root download "$package"'
)


@dataclass(frozen=True)
class Recipe:
    """One variant, as read from its JSON file."""

    variant: str
    model: str
    architecture: str  # Debian's name for it
    start: str  # the script of iPXE, or of U-Boot
    device_tree: str  # what describes the board to the kernel: a file of the kernel's package
    node_tools: bool
    preferred_name: str
    bootstrap: str
    packages: tuple[str, ...]
    kernel: str
    setup: str
    prune: tuple[str, ...]
    keep_modules: tuple[str, ...]
    drop_modules: tuple[str, ...]
    initrd_modules: tuple[str, ...]
    initrd_optional: tuple[str, ...]
    light_modules: bool

    @classmethod
    def load(cls, variant: str) -> Recipe:
        """Return the recipe of `variant`; Invalid for an unknown one."""
        if variant not in VARIANTS:
            raise Invalid(f"unknown variant {variant!r}: choose one of {', '.join(VARIANTS)}")
        data = json.loads((DATA / f"{variant}.json").read_text())
        lists = {
            key: tuple(data[key])
            for key in ("packages", "prune", "keep_modules", "drop_modules", "initrd_modules",
                        "initrd_optional")
        }
        return cls(
            variant, data["model"], data["architecture"], data["start"],
            data["device_tree"], data["node_tools"], data["preferred_name"],
            data["bootstrap"], kernel=data["kernel"], setup=data["setup"],
            light_modules=data["light_modules"], **lists,
        )

    def digest(self) -> str:
        """Return 12 hexadecimal digits that change with anything the recipe reads."""
        state = hashlib.sha256()
        for name in (f"{self.variant}.json", self.setup, "initramfs-init.sh", self.start):
            state.update((DATA / name).read_bytes())
        for code in (__file__, kernel_modules.__file__):
            state.update(Path(code).read_bytes())
        if self.node_tools:
            for _, content in tool_files():
                state.update(content)
        return state.hexdigest()[:12]

    @property
    def boot(self) -> Path:
        """Where the image has what its nodes boot."""
        return Path("boot") / self.model

    def busybox(self, root: Path) -> Path:
        """Return the busybox that works on the tree `root`: its own, where that runs here."""
        return root / "bin" / "busybox" if self.architecture == machine() else BUSYBOX


def machine() -> str:
    """Return the architecture of this machine, by Debian's name."""
    return run(["dpkg", "--print-architecture"]).strip()


def tool_files() -> list[tuple[str, bytes]]:
    """Return the modules that nodes reboot by kexec with, by their place in the archive."""
    found = [("walt/__init__.py", b"")]
    for package, modules in TOOL_MODULES.items():
        directory = Path(str(resources.files(package)))
        found += [
            (f"{package.replace('.', '/')}/{name}.py", (directory / f"{name}.py").read_bytes())
            for name in modules
        ]
    return found


def add_node_tools(root: Path) -> None:
    """Put the modules into the tree, as an archive from which Python imports."""
    target = root / TOOLS
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in tool_files():
            archive.writestr(zipfile.ZipInfo(name), content)


def run(argv: Sequence[str], *, cwd: Path | None = None) -> str:
    """Run a program to its end and return its output.

    Raises Unavailable when it is not installed, CommandFailed when it fails.
    """
    try:
        done = subprocess.run(
            list(argv), cwd=cwd, capture_output=True, text=True, errors="replace", check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise Unavailable(f"{argv[0]} is not installed; install it and try again") from None
    if done.returncode != 0:
        words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise CommandFailed(f"{argv[0]} failed (status {done.returncode}): {words}")
    return done.stdout


def apt_sources() -> list[str]:
    """Return the files of the machine's own package sources."""
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list")),
             *sorted((etc / "sources.list.d").glob("*.sources"))]
    return [str(file) for file in files if file.is_file() and file.stat().st_size > 0]


def suite() -> str:
    """Return the code name of the distribution of this machine."""
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise Unavailable("/etc/os-release names no release: the recipe needs a Debian machine")


def proxies() -> list[str]:
    """Return the machine's proxy settings for apt, as options of mmdebstrap."""
    dump = run(["apt-config", "dump", "Acquire"])
    return [
        f"--aptopt={line}" for line in dump.splitlines()
        if "::Proxy" in line.split(" ")[0] and not line.endswith(' "";')
    ]


def bootstrap(recipe: Recipe, root: Path) -> None:
    """Fill `root` with the packages of the recipe, and `.kernel` with the kernel's."""
    run([
        # That of Debian 13 makes all mounts private: those of the server are shared with the
        # view of its NFS daemon.
        "unshare", "--mount", "--propagation=slave", "mmdebstrap", "--quiet",
        "--mode=root", "--format=directory", f"--architectures={recipe.architecture}",
        f"--variant={recipe.bootstrap}", f"--include={','.join(recipe.packages)}", *proxies(),
        f"--extract-hook={_FETCH_KERNEL.replace('KERNEL', recipe.kernel)}",
        suite(), str(root), *apt_sources(),
    ])
    link_merged(root)


def link_merged(root: Path) -> None:
    """Make the links /bin, /sbin, /lib where packages ship everything below /usr.

    From Debian 13 on they do, and rely on links that the package base-files brings:
    a small image is without it.
    """
    if os.path.lexists(root / "bin"):
        return
    for name in ("bin", "sbin", "lib", "lib64"):
        if (root / "usr" / name).is_dir() and not os.path.lexists(root / name):
            (root / name).symlink_to(f"usr/{name}")


def modules_of(tree: Path, version: str) -> Path:
    """Return where an unpacked kernel package has its modules; Unavailable when nowhere."""
    places = [tree / top / "modules" / version for top in ("lib", "usr/lib")]  # Debian 12, 13
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise Unavailable(f"the package of kernel {version} has no modules in /lib or /usr/lib")
    return found


def install_kernel(recipe: Recipe, root: Path, work: Path) -> str:
    """Put kernel and modules in place; return the kernel's version."""
    packages = list((root / ".kernel").glob("*.deb"))
    if len(packages) != 1:
        raise Unavailable(f"no kernel package came with {recipe.kernel}")
    unpacked = work / "kernel"
    run(["dpkg-deb", "-x", str(packages[0]), str(unpacked)])
    shutil.rmtree(root / ".kernel")
    (vmlinuz,) = (unpacked / "boot").glob("vmlinuz-*")
    version = vmlinuz.name.removeprefix("vmlinuz-")
    boot = root / recipe.boot
    boot.mkdir(parents=True)
    shutil.copyfile(vmlinuz, boot / "kernel")
    script = (DATA / recipe.start).read_bytes()
    if recipe.start.endswith(".uboot"):
        (boot / "start.uboot").write_bytes(uboot_script(script))
    else:
        (boot / "start.ipxe").write_bytes(script)
    if recipe.device_tree:
        trees = unpacked / "usr" / "lib" / f"linux-image-{version}"
        shutil.copyfile(trees / recipe.device_tree, boot / "dtb")
    source = modules_of(unpacked, version)
    for dropped in recipe.drop_modules:
        shutil.rmtree(source / dropped, ignore_errors=True)
    if recipe.keep_modules:
        _keep_only(source, recipe.keep_modules)
    if recipe.light_modules:
        kernel_modules.lighten(source)
    target = root / "lib" / "modules" / version
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)
    return version


def uboot_script(text: bytes) -> bytes:
    """Return a script as U-Boot takes it: a legacy image (U-Boot documentation, mkimage)."""
    data = struct.pack(">II", len(text), 0) + text  # sizes of its parts, of which there is one
    linux, arm64, script, plain = 5, 22, 6, 0

    def header(checksum: int) -> bytes:
        return struct.pack(
            ">IIIIIIIBBBB32s", UBOOT_MAGIC, checksum, 0, len(data), 0, 0, zlib.crc32(data),
            linux, arm64, script, plain, b"WalT",
        )

    return header(zlib.crc32(header(0))) + data


def _keep_only(source: Path, kept: Sequence[str]) -> None:
    prefixes = tuple(f"{source}/{directory}" for directory in kept)
    for module in list(source.rglob("*.ko*")):  # .ko.xz from Debian 13 on
        if not str(module).startswith(prefixes):
            module.unlink()


def depmod(busybox: Path, tree: Path, version: str) -> None:
    """Write the text indexes of the modules below `tree`, with the image's busybox."""
    run([str(busybox), "depmod", "-b", str(tree), version])


def depmod_image(recipe: Recipe, root: Path, version: str) -> None:
    """Write the module indexes of a finished tree."""
    depmod(recipe.busybox(root), root, version)
    # kmod is a link that is absolute in the image; it reads binary indexes, which it
    # alone can write, much faster than the text ones.
    if os.path.lexists(root / "usr" / "sbin" / "depmod"):
        run(["chroot", str(root), "/usr/sbin/depmod", version])


def _dependencies(source: Path, wanted: Sequence[str], optional: Sequence[str]) -> set[str]:
    """Return the paths (relative to `source`) of modules and all they need."""
    needs: dict[str, list[str]] = {}
    for line in (source / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {Path(path).name.split(".")[0].replace("-", "_"): path for path in needs}
    built_in = {
        Path(line).name.split(".")[0].replace("-", "_")
        for line in (source / "modules.builtin").read_text().split()
    }
    missing = [
        name for name in wanted
        if name.replace("-", "_") not in by_name and name.replace("-", "_") not in built_in
    ]
    if missing:
        raise Unavailable(f"the kernel package has no module {', '.join(missing)}")
    todo = [by_name[name.replace("-", "_")] for name in (*wanted, *optional)
            if name.replace("-", "_") in by_name]
    found: set[str] = set()
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo.extend(needs.get(path, ()))
    return found


def make_initrd(recipe: Recipe, root: Path, work: Path, version: str) -> None:
    """Write the initial RAM file system: busybox, our init, the modules of the boot."""
    tree = work / "initrd"
    for name in ("bin", "proc", "sys", "dev", "run", "root", "etc"):
        (tree / name).mkdir(parents=True)
    busybox = tree / "bin" / "busybox"
    shutil.copyfile(root / "bin" / "busybox", busybox)
    busybox.chmod(0o755)
    runs = recipe.busybox(root)
    for applet in run([str(runs), "--list"]).split():
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    source = root / "lib" / "modules" / version
    target = tree / "lib" / "modules" / version
    for path in _dependencies(source, recipe.initrd_modules, recipe.initrd_optional):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target / path)
    depmod(runs, tree, version)
    init = tree / "init"
    shutil.copyfile(DATA / "initramfs-init.sh", init)
    init.chmod(0o755)
    names = [".", *sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))]
    packed = subprocess.run(
        [str(runs), "cpio", "-o", "-H", "newc", "-R", "0:0"], cwd=tree, check=True,
        input="\n".join(names).encode(), capture_output=True,
    ).stdout
    (root / recipe.boot / "initrd").write_bytes(gzip.compress(packed, 9, mtime=0))


def finish_tree(recipe: Recipe, root: Path) -> None:
    """Run the variant's set-up script and remove what a node does not need."""
    run(["sh", str(DATA / recipe.setup), str(root), str(recipe.busybox(root).absolute())])
    if recipe.node_tools:
        add_node_tools(root)
    for name in recipe.prune:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("dev", "proc", "sys", "run"):
        (root / name).mkdir(exist_ok=True)


def pack(root: Path, archive: Path) -> None:
    """Make the archive of the whole tree; it appears only when complete."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        run(["tar", "--numeric-owner", "--sort=name", "--xattrs", "--one-file-system",
             "--exclude=./dev/*", "-C", str(root), "-cf", str(partial), "."])
        partial.rename(archive)
    finally:
        partial.unlink(missing_ok=True)
