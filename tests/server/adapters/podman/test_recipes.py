"""Whose images a recipe names, however it is written."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid, NotFound
from walt.server.adapters.podman import recipes
from walt.server.domain.images.recipes import MAX_SIZE

NEW, OLD = (5, 4, 2), (4, 3, 1)  # versions of podman
HERE, OTHER = "docker.io/ann/img", "docker.io/ann/other"
PIECES = (
    "FROM", "img", "$B", "${B:-x}", " ", "\n", "\\\n", "ARG B=", "COPY --from=", "RUN ", "<<E\n",
    "E\n", "# escape=`\n", "`\n", "ONBUILD ", "AS ", "'", '"', "--mount=from=", ",", "\t", "\0",
)


def rewrite(text: str) -> str:
    """Return the recipe of user ann."""
    return recipes.rewrite(text, "ann", "x86_64")


class RewriteTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Bare names are the caller's; scratch and full references stay."""
        for line, expected in (
            ("FROM img", f"FROM {HERE}"),
            ("from img:v1 as one", f"from {HERE}:v1 as one"),
            ("FROM --platform=linux/amd64 img", f"FROM --platform=linux/amd64 {HERE}"),
            ("FROM bob/img", "FROM docker.io/bob/img"),
            ("FROM waltplatform/pc-default", "FROM docker.io/waltplatform/pc-default"),
            ("FROM scratch", "FROM scratch"),
            ("FROM docker.io/library/debian:12", "FROM docker.io/library/debian:12"),
            ("FROM localhost:5000/x/y", "FROM localhost:5000/x/y"),
            ('FROM "img"', f"FROM {HERE}"),
        ):
            self.assertEqual(rewrite(f"{line}\nRUN x\n"), f"{expected}\nRUN x\n")

    def test_variables(self) -> None:
        """A variable that names an image stands for the caller's."""
        for before, name in (
            ("ARG B=img", "$B"), ("ARG B=img", "${B}"), ("ARG B='img'", "$B"),
            ('ARG B="img"', '"$B"'), ("ARG A=im\nARG B=${A}g", "$B"), ("ARG B=im", "${B}g"),
            ("ARG A", "${A:-img}"), ("ARG A=", "${A:-img}"), ("ARG A=1", "${A:+img}"),
            ("ARG X=1 B=img", "$B"), ("arg B=img", "$B"), ("ARG \\\n B=img", "$B"),
        ):
            made = rewrite(f"{before}\nFROM {name} AS one\n")
            self.assertEqual(made, f"{before}\nFROM {HERE} AS one\n")
        self.assertIn("/ann/img-amd64\n", rewrite("FROM img-${TARGETARCH}\n"))
        for text in ("FROM $B\n", "ARG B\nFROM $B\n", "FROM img\nARG B=x\nFROM $B\n",
                     "ARG B=$C\nFROM $B\n"):
            refused = self.assertRaises(Invalid, rewrite, text)
            self.assertIn("ARG B=", str(refused))

    def test_every_instruction(self) -> None:
        """COPY, RUN --mount and ONBUILD name images, too; stages and numbers are none."""
        for line, expected in (
            ("COPY --from=other a b", f"COPY --from={OTHER} a b"),
            ("COPY --from=bob/x a b", "COPY --from=docker.io/bob/x a b"),
            ("COPY --chown=1 --from=other a b", f"COPY --chown=1 --from={OTHER} a b"),
            ("COPY --from=one a b", None), ("COPY --from=ONE a b", None),
            ("COPY --from=0 a b", None), ("COPY a --from=other", None),
            ("ARG S=other\nCOPY --from=$S a b", f"ARG S=other\nCOPY --from={OTHER} a b"),
            ("RUN --mount=type=bind,from=other,target=/a id",
             f"RUN --mount=type=bind,from={OTHER},target=/a id"),
            ("RUN --mount=type=bind,from=one,target=/a id", None),
            ("RUN --mount=type=cache,target=$HOME/x id", None),
            ("RUN echo --mount=from=other", None),
            ("ONBUILD COPY --from=other a b", f"ONBUILD COPY --from={OTHER} a b"),
            ("ONBUILD RUN --mount=from=other,target=/a id",
             f"ONBUILD RUN --mount=from={OTHER},target=/a id"),
        ):
            made = rewrite(f"FROM img AS One\n{line}\nFROM one\n")
            self.assertEqual(made, f"FROM {HERE} AS One\n{expected or line}\nFROM one\n")
        for line in ("RUN --mount=type=bind,$HOW id", "COPY --from=$NONE a b"):
            self.assertRaises(Invalid, rewrite, f"FROM img\n{line}\n")

    def test_forms(self) -> None:
        """Marks, continued lines, comments within, other escape characters, documents."""
        self.assertEqual(rewrite("FROM \\\n  img\nRUN x\n"), f"FROM {HERE}\nRUN x\n")
        self.assertEqual(rewrite("FROM \\\n# why\n\n  img AS a\n"), f"FROM {HERE} AS a\n")
        self.assertEqual(
            rewrite("# escape=`\nFROM `\n img\nRUN dir \\\n"),
            f"# escape=`\nFROM {HERE}\nRUN dir \\\n",
        )
        text = "FROM img\nRUN <<END\nFROM other\nEND\n# FROM x\nRUN echo \\\nFROM x\n"
        made = recipes.rewrite(text, "ann", "x86_64")
        self.assertEqual(made, text.replace("FROM img", f"FROM {HERE}"))
        # A line that ends with CR and LF.
        self.assertIn(f"FROM {HERE}", rewrite("FROM img\r\nRUN x\r\n"))

    def test_refused(self) -> None:
        """No FROM, words that are no names, what is no recipe."""
        for text in ("", "RUN x\n", "# FROM x\n", "FROM\n", "FROM -x\n", "FROM a;b\n",
                     "FROM img\nRUN <<E\n", "FROM img\n\0\nFROM x\n"):
            self.assertRaises(Invalid, rewrite, text)

    @given(st.text(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
    def test_any_text(self, text: str) -> None:
        """No text makes it fail otherwise; what was made means the same to who reads it again."""
        try:
            made = rewrite(text)
        except Invalid:
            return
        self.assertEqual(rewrite(made), made)


class PrepareTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A directory that somebody sent."""
        self.root = Path(self.mktemp())
        (self.root / "sub").mkdir(parents=True)

    def prepare(self, *, version: tuple[int, ...] = NEW) -> str:
        return recipes.prepare(self.root, self.root, "ann", version)

    def test_file(self) -> None:
        """A file with a byte order mark; a link inside; nothing that leads outside."""
        self.assertRaises(NotFound, self.prepare)
        recipe = self.root / "Dockerfile"
        recipe.write_bytes(b"\xef\xbb\xbfFROM img\n")
        self.assertEqual(self.prepare(), f"FROM {HERE}\n")
        recipe.rename(self.root / "sub/recipe")
        recipe.symlink_to("sub/recipe")
        self.assertEqual(self.prepare(), f"FROM {HERE}\n")
        for target in ("/etc/hostname", "../../x", "nothing", "Dockerfile", "sub"):
            recipe.unlink()
            recipe.symlink_to(target)
            self.assertRaises(Invalid, self.prepare)
        recipe.unlink()
        os.mkfifo(recipe)
        self.assertRaises(Invalid, self.prepare)
        recipe.unlink()
        recipe.write_bytes(b"#" * (MAX_SIZE + 1))
        self.assertRaises(Invalid, self.prepare)

    def test_images_that_are_not_there(self) -> None:
        """Are told, not asked of a stranger on the Docker Hub; those of registries are theirs."""
        known = {"ann/img:latest", "ann/img:2", "bob/his:latest"}

        def made(text: str) -> str:
            return recipes.rewrite(text, "ann", "x86_64", known)

        for name in (
            "img", "img:2", "bob/his", "scratch", "docker.io/library/debian:12", "quay.io/x/y",
            "waltplatform/rpi-b-default", "img@sha256:" + "0" * 64,
        ):
            made(f"FROM {name}\n")
        made("FROM img AS one\nCOPY --from=one /a /b\nCOPY --from=0 /a /b\nFROM one\n")
        for text, told in (
            ("FROM nosuch\n", "you have no image named 'nosuch'"),
            ("FROM debian:12\n", "docker.io/library/debian:12"),
            ("FROM img:3\n", "'img:3'"), ("FROM bob/hers\n", "bob has no image named 'hers'"),
            ("ARG B=nosuch\nFROM $B\n", "'nosuch'"), ("FROM img\nCOPY --from=x /a /b\n", "'x'"),
        ):
            error = self.assertRaises(NotFound, made, text)
            self.assertIn(told, str(error))

    def test_versions(self) -> None:
        """What the podman of the server cannot do is told before it tries."""
        for text in ("RUN --mount=from=other,target=/a id", "RUN <<END\nid\nEND"):
            (self.root / "Dockerfile").write_text(f"FROM img\n{text}\n")
            self.prepare(version=NEW)
            refused = self.assertRaises(Invalid, self.prepare, version=OLD)
            self.assertIn("before ", str(refused))

    def test_ignored(self) -> None:
        """Removed as docker reads patterns, exceptions below ignored directories kept."""
        outside = self.root.parent / "outside"
        outside.mkdir()
        (outside / "kept.txt").write_text("k")
        files = ("source.txt", "top.py", "sub/deep/in.py", "sub/no.txt", "empty/no.txt",
                 os.fsdecode(b"caf\xe9.py"), "new\nline")
        for name in files:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text("x")
        (self.root / "link").symlink_to(outside)
        (self.root / ".dockerignore").write_text("*\n!./source.txt\n!**/*.py\n!sub\nsub/no.txt\n")
        recipes.remove_ignored(self.root, self.root)
        left = {
            str((Path(top) / name).relative_to(self.root))
            for top, names, files in os.walk(self.root) for name in (*names, *files)
        }
        self.assertEqual(left, {
            "source.txt", "top.py", "sub", "sub/deep", "sub/deep/in.py",
            os.fsdecode(b"caf\xe9.py"),
        })
        self.assertTrue((outside / "kept.txt").exists())

    def test_ignored_by_which_file(self) -> None:
        """That of the directory, never another one; patterns that are none are told."""
        (self.root / "a").write_text("x")
        recipes.remove_ignored(self.root, self.root)
        self.assertTrue((self.root / "a").exists())
        (self.root / ".dockerignore").write_text("[z-a]\n")
        self.assertRaises(Invalid, recipes.remove_ignored, self.root, self.root)
        (self.root / ".containerignore").write_text("a\n")  # before the other
        recipes.remove_ignored(self.root, self.root)
        self.assertFalse((self.root / "a").exists())
        for target in ("/etc/passwd", "../x", "nothing", "sub"):
            (self.root / ".containerignore").unlink()
            (self.root / ".containerignore").symlink_to(target)
            self.assertRaises(Invalid, recipes.remove_ignored, self.root, self.root)

    def test_mounts(self) -> None:
        """What RUN mounts of files is seen by an older podman's server, however it is written."""
        recipe = self.root / "Dockerfile"
        for line in (
            "RUN --mount=type=bind,from=base,source=/,target=/m id",
            "RUN --network=none --MOUNT=from=base,rw id", "RUN --mount=type=bind,$HOW id",
            "RUN --mount=type=bind,fr\\\nom=base id", "RUN \\\n --mount=from=base id",
            'RUN --mount=type=bind,"from=base" id', 'RUN --mount="type=bind" id',
            "RUN --mount=type=cache,id=../../../x,target=/m id", "RUN --mount=target=/m id",
            "RUN --mount=type=bind,source=link,target=/m,rw id", "RUN --mount type=cache id",
            "RUN --mount=type=tmpfs,target=/m --mount=type=cache,target=/n id",
            "RUN --mount=type=tmpfs,from=base,target=/m id", "RUN --mount=type=$T,target=/m id",
            "RUN --mount=type=secret,id=x id", "ONBUILD RUN --mount=target=/m id",
            "RUN --mo\\\n# c\nunt=type=cache,id=../.. id", "RUN --mo\\\n  \nunt=type=cache id",
            "RUN --mount=type=tmpfs,type=cache,id=../..,target=/m id",
            "RUN --mount=type=tmpfs,target=/x,type=cache,dst=/m id",
            "RUN --mount=type=tmpfs,Type=cache,target=/x id", "run --mount=type=cache id",
            "RUN --mount=type=tmpfs,target=/x,source=y id", "RUN --mount=type=tmpfs,target= id",
            "ARG M=mount\nRUN --$M=type=cache,id=x id", "RUN --${M}=type=cache id",
            "RUN --moun$T=type=cache id", "ONBUILD RUN --$M=type=cache id", "COPY --$F=x a b",
        ):
            recipe.write_text(f"FROM img\n{line}\n")
            self.assertRaises(Invalid, self.prepare, version=OLD)
            recipe.write_text(f"# escape=`\nFROM img\n{line.replace(chr(92), '`')}\n")
            self.assertRaises(Invalid, self.prepare, version=OLD)
        for line in (
            "COPY --from=0 --chown=1:1 a b", "RUN --network=none id", "RUN mount",
            "RUN --mount=type=tmpfs,target=/m id",
            "RUN unshare --mount-proc id", "RUN --mount=type=tmpfs,size=64,target=/m/n id",
            "RUN unshare --mount id", 'CMD ["--mount=type=cache"]',
        ):
            recipe.write_text(f"FROM img\n{line}\n")
            self.assertEqual(self.prepare(version=OLD), f"FROM {HERE}\n{line}\n")

    def test_written_anew(self) -> None:
        """An older podman gets an instruction a line, and nothing that it may read otherwise."""
        recipe = self.root / "Dockerfile"
        recipe.write_text("# a comment\nFROM img\n\nRUN a \\\n# why\n  b\n  # c\nENV A=b\r\n")
        self.assertEqual(self.prepare(version=OLD), f"FROM {HERE}\nRUN a   b\nENV A=b\n")
        recipe.write_text("# escape=`\nFROM img\nRUN a `\n b\n")
        self.assertEqual(self.prepare(version=OLD), f"# escape=`\nFROM {HERE}\nRUN a  b\n")
