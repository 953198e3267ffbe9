"""Programs do the same when they are recorded; what they did survives what may happen."""

from __future__ import annotations

import ast
import os
import signal
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from tests.patience import patient
from tests.server.trackexec.recorded import SAMPLE, in_child, lines, load, package, recorded
from walt.server.trackexec import codes
from walt.server.trackexec.codes import FILES, INVOCATIONS, LINES
from walt.server.trackexec.record import Record, RecordError
from walt.server.trackexec.recorder import ENTRY, Block, Writer
from walt.server.trackexec.transform import transform

WALT = Path(__file__).resolve().parents[3] / "walt"
RECORDED = """
import sys, time
from pathlib import Path
from walt.server.trackexec.hook import Hook
from walt.server.trackexec.recorder import Recorder
import resource
sys.path.insert(0, sys.argv[1])
recorder = Recorder(Path(sys.argv[3]), lambda text: print(text, flush=True))
recorder.start()
Hook(sys.argv[2], (), recorder.record, recorder.numbered).install()
from importlib import import_module
module = import_module(sys.argv[2] + ".program")
if len(sys.argv) > 4:
    size = int(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
module.main()
"""
ENDLESS = """
def main():
    number = 0
    while True:
        number += sum(range(99))
"""
# What it does cannot be packed.
RANDOM = """
import os, time
def main():
    for _ in range(4000):
        time.sleep(0.001)
        for byte in os.urandom(20):
            if byte & 1:
                pass
            else:
                byte += 1
"""


class CodeTests(SynchronousTestCase):
    @given(some.integers(0, 3), some.integers(0, FILES - 1), some.integers(0, LINES - 1))
    def test_places(self, kind: int, file: int, line: int) -> None:
        """What is put in comes out, and fits 32 bits."""
        code = codes.place(kind, file, line)
        self.assertLess(code, 1 << 32)
        self.assertEqual(
            (codes.kind(code), codes.file_of(code), codes.line_of(code)), (kind, file, line)
        )

    @given(some.integers(0, 3), some.integers(0, (1 << 56) - 1))
    def test_moments(self, what: int, when: int) -> None:
        """Times of the next two thousand years, to the microsecond."""
        early, late = codes.moment(what, when)
        self.assertEqual((codes.kind(early), codes.kind(late)), (codes.EARLY, codes.LATE))
        self.assertLess(max(early, late), 1 << 32)
        self.assertEqual(codes.time_of(early, late), (what, when))

    @given(some.integers(0, INVOCATIONS - 1))
    def test_invocations(self, number: int) -> None:
        """All of them are of one kind."""
        code = codes.resumed(number)
        self.assertEqual((codes.kind(code), codes.number_of(code)), (codes.RESUME, number))


class TransformTests(SynchronousTestCase):
    def test_all_modules(self) -> None:
        """Every module of the product compiles, and its lines keep their numbers."""
        for number, path in enumerate(sorted(WALT.rglob("*.py")), 1):
            text = path.read_text()
            tree = transform(text, str(path), number)
            compile(tree, str(path), "exec", dont_inherit=True)
            last = text.count("\n") + 1
            for node in ast.walk(tree):
                self.assertLessEqual(getattr(node, "lineno", 1), last, path)

    def test_same_results(self) -> None:
        """Coroutines, generators, contexts, exceptions, closures: as without the record."""
        directory = Path(self.mktemp()).resolve()
        plain = load(directory, package(directory)).main()
        self.assertEqual(len(plain), 6)
        for early in False, True:
            result, where = recorded(directory, early=early)
            self.assertEqual(result, plain)
            found = lines(Record(where))
            number = SAMPLE.splitlines().index("    return value + number + one") + 1
            self.assertTrue([one for one in found if one.endswith(f"> inner:{number}")], found)


class RecordTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()

    def test_killed(self) -> None:
        """A process in an endless loop is killed: all but the last second is there."""
        name = package(self.directory, ENDLESS)
        where = self.directory / "r"
        child = in_child(RECORDED, str(self.directory), name, str(where))
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        limit = time.monotonic() + patient(30)
        while not (where / "log_index").exists() or not (where / "log_index").stat().st_size:
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.05)
        record = Record(where)  # it is read while it grows
        self.addCleanup(record.close)
        before = len(record.entries)
        time.sleep(1.5)
        self.assertTrue(record.refresh())
        self.assertGreater(len(record.entries), before)
        child.send_signal(signal.SIGKILL)
        child.wait()
        killed = time.time()
        record.refresh()
        self.assertGreater(record.entries[-1].end / 1e6, killed - patient(1.0))
        for entry in record.entries:
            self.assertIsNotNone(record.codes(entry))
        self.assertIn("main:5", lines(record))

    def test_no_space(self) -> None:
        """A file cannot grow: it is told once, the program goes on, what was written is read."""
        name = package(self.directory, RANDOM)
        where = self.directory / "r"
        child = in_child(RECORDED, str(self.directory), name, str(where), "20000")
        told, _ = child.communicate(timeout=patient(60))
        self.assertEqual(child.returncode, 0, told)
        self.assertEqual(told.count("has gaps from now on: File too large"), 1, told)
        record = Record(where)
        self.addCleanup(record.close)
        self.assertGreater(len(record.entries), 0)
        self.assertIn("main:7", lines(record))

    def test_damage(self) -> None:
        """A block that changed, an index that was cut, sources that are gone: the rest is read."""
        _, where = recorded(self.directory)
        record = Record(where)
        whole = lines(record)
        record.close()
        index = where / "log_index"
        index.write_bytes(index.read_bytes() + b"cut off")
        record = Record(where)
        self.assertEqual(lines(record), whole)
        record.close()
        for path in (where / "sources").iterdir():
            path.write_bytes(b"no gzip")
        record = Record(where)
        self.assertEqual(len(lines(record)), len(whole))
        record.close()
        data = bytearray((where / "log_map" / "0").read_bytes())
        data[len(data) // 2] ^= 1
        (where / "log_map" / "0").write_bytes(data)
        record = Record(where)
        self.addCleanup(record.close)
        self.assertIn(None, map(record.codes, record.entries))

    def test_what_is_no_record(self) -> None:
        """Other directories, other versions: said in words."""
        _, where = recorded(self.directory)
        for text, reason in (
            ('{"version": 2, "pid": 1}', "another version"), ("[]", "damaged"), ("", "damaged"),
        ):
            (where / "about").write_text(text)
            with self.assertRaises(RecordError) as caught:
                Record(where)
            self.assertIn(reason, str(caught.exception))
        with self.assertRaises(RecordError) as caught:
            Record(self.directory)
        self.assertIn("No such file or directory", str(caught.exception))

    @given(some.binary(max_size=200), some.binary(max_size=200))
    def test_any_bytes(self, index: bytes, data: bytes) -> None:
        """Whatever files hold, reading ends without other errors."""
        where = self.directory / "any"
        (where / "log_map").mkdir(parents=True, exist_ok=True)
        (where / "sources").mkdir(exist_ok=True)
        (where / "about").write_text('{"version": 1, "pid": 1}')
        (where / "log_index").write_bytes(index)
        (where / "log_map" / "0").write_bytes(data)
        record = Record(where)
        self.assertEqual(len(record.entries), len(index) // ENTRY.size)
        lines(record)
        record.close()

    def test_space(self) -> None:
        """The oldest runs go first, then the oldest parts of this one."""
        old = self.directory / "261101-000000" / "server"
        old.mkdir(parents=True)
        (old / "much").write_bytes(b"x" * 3_000_000)
        where = self.directory / "261102-000000" / "server"
        (where / "log_map").mkdir(parents=True)
        (where / "log_index").touch()
        writer = Writer(where, self.fail, space=6_000_000)
        for number in range(6):
            # What cannot be packed.
            self.assertTrue(writer.write(Block(os.urandom(2 << 20), number, number, 0), 0))
        self.assertFalse(old.exists())
        names = {one.name for one in (where / "log_map").iterdir()}
        self.assertEqual(names, {"2"})
        (where / "about").write_text('{"version": 1, "pid": 1}')
        record = Record(where)
        self.addCleanup(record.close)
        self.assertEqual(
            [record.codes(one) is None for one in record.entries],
            [True, True, True, True, False, False],
        )
