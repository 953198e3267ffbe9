-- Links of one device among those of thousands; boots under way among those of years.

CREATE INDEX topology_mac1_idx ON topology (mac1);
CREATE INDEX topology_mac2_idx ON topology (mac2);
CREATE INDEX boots_booting_idx ON boots (mac) WHERE outcome = 'booting';
