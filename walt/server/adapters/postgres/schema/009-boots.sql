-- A record of each boot (walt.server.domain.nodes.boots), from which it follows how long boots took.
CREATE TABLE boots (
    mac text NOT NULL REFERENCES devices (mac) ON DELETE CASCADE,
    asked timestamptz NOT NULL,
    node text NOT NULL,
    image text,
    digest text,
    cause text,
    tries integer NOT NULL,
    outcome text NOT NULL,
    reason text,
    started timestamptz,
    address timestamptz,
    script timestamptz,
    kernel timestamptz,
    root timestamptz,
    system timestamptz,
    ready timestamptz,
    PRIMARY KEY (mac, asked)
);
DROP TABLE boottimes;
