-- Public keys by which users reach the nodes they own (walt.server.domain.nodes.keys).
CREATE TABLE user_keys (
    username text NOT NULL,
    key text NOT NULL,
    comment text NOT NULL,
    added timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (username, key)
);
