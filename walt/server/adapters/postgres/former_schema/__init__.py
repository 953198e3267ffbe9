"""SQL that takes over the database of an older WalT (walt.server.adapters.postgres.former)."""
