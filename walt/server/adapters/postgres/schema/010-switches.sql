-- What is known of switches (walt.server.domain.switches).

-- The last survey of a switch: its ports, what feeds them; and when it was read.
ALTER TABLE switches ADD COLUMN survey jsonb, ADD COLUMN explored timestamptz;

-- Ports are those of the survey (ifIndex); evidence: lldp-both, lldp, bridge or report.
ALTER TABLE topology ADD COLUMN evidence text NOT NULL DEFAULT 'report';

-- Everything that was ever seen of links: rows are only added, one for each news.
CREATE TABLE sightings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seen timestamptz NOT NULL DEFAULT now(),
    mac1 text NOT NULL REFERENCES devices (mac) ON DELETE CASCADE,
    port1 integer,
    mac2 text NOT NULL REFERENCES devices (mac) ON DELETE CASCADE,
    port2 integer,
    evidence text NOT NULL,
    confirmed boolean NOT NULL
);
CREATE INDEX sightings_mac1_idx ON sightings (mac1);
CREATE INDEX sightings_mac2_idx ON sightings (mac2);

-- How a port that was switched off is switched on again, without asking the switch anything.
ALTER TABLE poeoff ADD COLUMN control text, ADD COLUMN on_value integer,
    ADD COLUMN node text, ADD COLUMN since timestamptz NOT NULL DEFAULT now();
