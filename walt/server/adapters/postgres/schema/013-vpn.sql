-- Keys of VPN nodes are looked up by their identity.
CREATE INDEX vpnauth_certid_idx ON vpnauth (certid);

-- Every HTTP entry point that boards may have in their EEPROM: requests to it are answered inside
-- walt-net, too. The addresses are those that its name had last.
CREATE TABLE vpnentrypoints (
    name text PRIMARY KEY,
    addresses text[] NOT NULL DEFAULT '{}',
    added timestamptz NOT NULL DEFAULT now()
);
