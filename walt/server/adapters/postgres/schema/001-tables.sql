-- Tables of spec server §2.2, with the keys that make wrong rows impossible.

CREATE TABLE devices (
    mac text PRIMARY KEY,
    ip text,
    name text NOT NULL,
    type text NOT NULL CHECK (type IN ('server', 'node', 'switch', 'unknown')),
    virtual boolean NOT NULL DEFAULT false,
    conf jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX devices_ip_idx ON devices (ip);
CREATE UNIQUE INDEX devices_name_idx ON devices (name);

CREATE TABLE topology (
    mac1 text NOT NULL REFERENCES devices (mac) ON DELETE CASCADE,
    mac2 text NOT NULL REFERENCES devices (mac) ON DELETE CASCADE,
    port1 integer,
    port2 integer,
    confirmed boolean NOT NULL DEFAULT true,
    last_seen timestamptz NOT NULL DEFAULT now(),
    CHECK (mac1 < mac2)
);

CREATE TABLE images (
    fullname text PRIMARY KEY
);

CREATE TABLE nodes (
    mac text PRIMARY KEY REFERENCES devices (mac) ON DELETE CASCADE,
    image text NOT NULL REFERENCES images (fullname) ON UPDATE CASCADE,
    model text NOT NULL
);

CREATE TABLE switches (
    mac text PRIMARY KEY REFERENCES devices (mac) ON DELETE CASCADE,
    model text
);

CREATE TABLE switchports (
    mac text NOT NULL REFERENCES devices (mac) ON DELETE CASCADE,
    port integer NOT NULL,
    name text NOT NULL,
    PRIMARY KEY (mac, port)
);

CREATE TABLE checkpoints (
    username text NOT NULL,
    timestamp timestamp NOT NULL,
    name text NOT NULL,
    UNIQUE (username, name)
);
CREATE INDEX checkpoints_username_idx ON checkpoints (username);

CREATE TABLE poeoff (
    mac text NOT NULL REFERENCES devices (mac) ON DELETE CASCADE,
    port integer NOT NULL,
    reason text NOT NULL CHECK (reason IN ('powersave', 'hard-reboot')),
    PRIMARY KEY (mac, port)
);

CREATE TABLE vpnauth (
    vpnmac text PRIMARY KEY,
    pubkeycert text NOT NULL,
    certid text NOT NULL,
    device_label text,
    revoked boolean NOT NULL DEFAULT false
);

CREATE TABLE vpnnodes (
    mac text PRIMARY KEY REFERENCES devices (mac) ON DELETE CASCADE,
    vpnmac text NOT NULL REFERENCES vpnauth (vpnmac)
);

-- Which nodes are up, so that a restarted server does not disturb them (design D20).
CREATE TABLE bootstates (
    mac text PRIMARY KEY REFERENCES devices (mac) ON DELETE CASCADE,
    booted boolean NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
