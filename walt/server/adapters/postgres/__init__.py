"""The database: embedded cluster, connections, schema, stores."""
