"""walt advanced sql: psql on the database of a live server."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import LivePlatform, why_not

INSERT = b"INSERT INTO checkpoints VALUES ('ann', now(), 'here');\n"


class SqlTests(TestCase):
    skip = why_not()
    timeout = patient(120)

    async def test_statements_of_a_pipe(self) -> None:
        """Read-only unless told otherwise; a wrong statement has a status; only root may."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.start()

        async def asked(*words: str, sql: bytes) -> tuple[int, str]:
            done = await platform.walt("advanced", "sql", *words, stdin=sql)
            return done.status, (done.stdout + done.stderr).decode()

        status, told = await asked(sql=b"SELECT type, count(*) FROM devices GROUP BY type;\n")
        self.assertEqual(status, 0, told)
        self.assertIn("server |     1", told)
        self.assertNotIn("password", told)
        status, told = await asked(sql=INSERT)
        self.assertNotEqual(status, 0, told)
        self.assertIn("read-only", told)
        status, told = await asked("--write", sql=INSERT + b"SELECT name FROM checkpoints;\n")
        self.assertEqual((status, "here" in told), (0, True), told)
        status, told = await asked(sql=b"SELECT nothing;\nSELECT 'went on';\n")
        self.assertNotEqual(status, 0)
        self.assertNotIn("went on", told)
