-- Certificates given to users and machines (walt.server.domain.access).
CREATE TABLE certificates (
    serial text PRIMARY KEY,
    holder text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('user', 'machine')),
    issued timestamptz NOT NULL,
    expires timestamptz NOT NULL,
    revoked timestamptz
);
