-- Links of one device, among those of thousands.

CREATE INDEX topology_mac1_idx ON topology (mac1);
CREATE INDEX topology_mac2_idx ON topology (mac2);
