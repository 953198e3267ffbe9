"""Which errors mean that the database is in trouble, so that what was asked is asked again."""

from __future__ import annotations

import psycopg2
from psycopg2 import errors
from twisted.trial.unittest import SynchronousTestCase

from walt.server.adapters.postgres.connection import was_lost


class LostTests(SynchronousTestCase):
    def test_classes(self) -> None:
        """Connections and internal errors; what a statement itself asked for is its own fault."""
        for error in (
            psycopg2.OperationalError(), psycopg2.InterfaceError(), psycopg2.DatabaseError(),
            errors.AdminShutdown(), errors.CrashShutdown(), errors.CannotConnectNow(),
            errors.InFailedSqlTransaction(), errors.InternalError_(), errors.DiskFull(),
            OSError(9, "Bad file descriptor"), FileNotFoundError(2, "epoll"),
        ):
            self.assertTrue(was_lost(error), error)
        for error in (
            errors.UniqueViolation(), errors.ForeignKeyViolation(), errors.UndefinedTable(),
            errors.InvalidRegularExpression(), errors.CharacterNotInRepertoire(),
            errors.ProgramLimitExceeded(), errors.StatementTooComplex(), ValueError("NUL"),
        ):
            self.assertFalse(was_lost(error), error)
