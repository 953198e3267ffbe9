-- How long the last boots of nodes took, by image (walt.server.domain.nodes.progress).
CREATE TABLE boottimes (
    mac text NOT NULL REFERENCES devices (mac) ON DELETE CASCADE,
    image text NOT NULL,
    seconds double precision[] NOT NULL,
    used timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (mac, image)
);
