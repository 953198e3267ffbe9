-- Rows of an older WalT (spec server §2.2, §2.3) come into our tables; what our keys refuse does
-- not. First its tables get what those of WalT 10 have.

CREATE TABLE IF NOT EXISTS walt_former.topology (
    mac1 text, mac2 text, port1 integer, port2 integer
);
CREATE TABLE IF NOT EXISTS walt_former.images (fullname text);
CREATE TABLE IF NOT EXISTS walt_former.nodes (mac text, image text);
CREATE TABLE IF NOT EXISTS walt_former.switches (mac text);
CREATE TABLE IF NOT EXISTS walt_former.switchports (mac text, port integer, name text);
CREATE TABLE IF NOT EXISTS walt_former.logs (stream_id integer, timestamp timestamptz, line text);
CREATE TABLE IF NOT EXISTS walt_former.checkpoints (username text, timestamp timestamp, name text);
CREATE TABLE IF NOT EXISTS walt_former.poeoff (mac text, port integer);
CREATE TABLE IF NOT EXISTS walt_former.vpnauth (vpnmac text, pubkeycert text, certid text);
CREATE TABLE IF NOT EXISTS walt_former.vpnnodes (mac text, vpnmac text);

DO $$
BEGIN
    IF EXISTS (
        SELECT FROM information_schema.columns WHERE table_schema = 'walt_former'
        AND table_name = 'logstreams' AND column_name = 'sender_mac'
    ) THEN
        ALTER TABLE walt_former.logstreams RENAME COLUMN sender_mac TO issuer_mac;
    END IF;
END
$$;
ALTER TABLE walt_former.devices
    ADD COLUMN IF NOT EXISTS virtual boolean,
    ADD COLUMN IF NOT EXISTS conf jsonb;
ALTER TABLE walt_former.nodes
    ADD COLUMN IF NOT EXISTS model text,
    ADD COLUMN IF NOT EXISTS netsetup integer;
ALTER TABLE walt_former.switches
    ADD COLUMN IF NOT EXISTS model text,
    ADD COLUMN IF NOT EXISTS lldp_explore boolean,
    ADD COLUMN IF NOT EXISTS poe_reboot_nodes boolean,
    ADD COLUMN IF NOT EXISTS snmp_conf text;
ALTER TABLE walt_former.images ADD COLUMN IF NOT EXISTS ready boolean DEFAULT true;
ALTER TABLE walt_former.topology
    ADD COLUMN IF NOT EXISTS confirmed boolean,
    ADD COLUMN IF NOT EXISTS last_seen timestamptz;
ALTER TABLE walt_former.poeoff ADD COLUMN IF NOT EXISTS reason text DEFAULT 'hard-reboot';
ALTER TABLE walt_former.vpnauth
    ADD COLUMN IF NOT EXISTS device_label text,
    ADD COLUMN IF NOT EXISTS revoked boolean;
ALTER TABLE walt_former.logstreams ADD COLUMN IF NOT EXISTS mode text;

-- Names are one for each device here; a node without model or image is unknown until it boots.
-- Settings were columns of other tables once: no settings, no column of them.
INSERT INTO devices (mac, ip, name, type, virtual, conf)
SELECT
    mac, ip,
    CASE WHEN again = 1 THEN name ELSE name || '-' || right(replace(mac, ':', ''), 6) END,
    type, virtual, conf
FROM (
    SELECT *, row_number() OVER (PARTITION BY name ORDER BY mac) AS again
    FROM (
        SELECT DISTINCT ON (lower(d.mac))
            lower(d.mac) AS mac, d.ip,
            coalesce(
                nullif(d.name, ''), 'device-' || right(replace(lower(d.mac), ':', ''), 6)
            ) AS name,
            CASE
                WHEN d.type = 'node' AND NOT EXISTS (
                    SELECT FROM walt_former.nodes n
                    WHERE n.mac = d.mac AND n.image IS NOT NULL AND n.model IS NOT NULL
                ) THEN 'unknown'
                WHEN d.type IN ('server', 'node', 'switch', 'unknown') THEN d.type
                ELSE 'unknown'
            END AS type,
            coalesce(d.virtual, false) AS virtual,
            coalesce(d.conf, jsonb_strip_nulls(jsonb_build_object(
                'netsetup', n.netsetup, 'lldp.explore', s.lldp_explore,
                'poe.reboots', s.poe_reboot_nodes,
                'snmp.version', s.snmp_conf::jsonb -> 'version',
                'snmp.community', s.snmp_conf::jsonb -> 'community'
            ))) AS conf
        FROM walt_former.devices d
        LEFT JOIN walt_former.nodes n ON n.mac = d.mac
        LEFT JOIN walt_former.switches s ON s.mac = d.mac
        WHERE d.mac IS NOT NULL
        ORDER BY lower(d.mac), d.mac
    ) AS devices
) AS named;

INSERT INTO images (fullname)
SELECT fullname FROM walt_former.images WHERE ready AND fullname IS NOT NULL
UNION
SELECT image FROM walt_former.nodes WHERE image IS NOT NULL;

INSERT INTO nodes (mac, image, model)
SELECT lower(n.mac), n.image, n.model FROM walt_former.nodes n
JOIN devices d ON d.mac = lower(n.mac) AND d.type = 'node'
WHERE n.image IS NOT NULL AND n.model IS NOT NULL
ON CONFLICT DO NOTHING;

INSERT INTO switches (mac, model)
SELECT lower(s.mac), s.model FROM walt_former.switches s
JOIN devices d ON d.mac = lower(s.mac)
ON CONFLICT DO NOTHING;

INSERT INTO switchports (mac, port, name)
SELECT lower(p.mac), p.port, p.name FROM walt_former.switchports p
JOIN devices d ON d.mac = lower(p.mac)
WHERE p.port IS NOT NULL AND p.name IS NOT NULL
ON CONFLICT DO NOTHING;

INSERT INTO topology (mac1, mac2, port1, port2, confirmed, last_seen)
SELECT
    lower(t.mac1), lower(t.mac2), t.port1, t.port2, coalesce(t.confirmed, false),
    coalesce(t.last_seen, now())
FROM walt_former.topology t
JOIN devices one ON one.mac = lower(t.mac1)
JOIN devices two ON two.mac = lower(t.mac2)
WHERE lower(t.mac1) < lower(t.mac2);

INSERT INTO checkpoints (username, timestamp, name)
SELECT username, timestamp, name FROM walt_former.checkpoints
WHERE username IS NOT NULL AND timestamp IS NOT NULL AND name IS NOT NULL
ON CONFLICT DO NOTHING;

INSERT INTO poeoff (mac, port, reason)
SELECT lower(p.mac), p.port, p.reason FROM walt_former.poeoff p
JOIN devices d ON d.mac = lower(p.mac)
WHERE p.port IS NOT NULL AND p.reason IN ('powersave', 'hard-reboot')
ON CONFLICT DO NOTHING;

INSERT INTO vpnauth (vpnmac, pubkeycert, certid, device_label, revoked)
SELECT vpnmac, pubkeycert, certid, device_label, coalesce(revoked, false)
FROM walt_former.vpnauth
WHERE vpnmac IS NOT NULL AND pubkeycert IS NOT NULL AND certid IS NOT NULL
ON CONFLICT DO NOTHING;

INSERT INTO vpnnodes (mac, vpnmac)
SELECT lower(n.mac), n.vpnmac FROM walt_former.vpnnodes n
JOIN devices d ON d.mac = lower(n.mac)
JOIN vpnauth a ON a.vpnmac = n.vpnmac
ON CONFLICT DO NOTHING;

-- Streams of one device and name become one.
CREATE TEMPORARY TABLE former_streams ON COMMIT DROP AS
SELECT
    s.id, d.mac, s.name, coalesce(s.mode::text, 'line')::logmode AS mode,
    min(s.id) OVER (PARTITION BY d.mac, s.name) AS kept
FROM walt_former.logstreams s JOIN devices d ON d.mac = lower(s.issuer_mac)
WHERE s.name IS NOT NULL;

INSERT INTO logstreams (id, issuer_mac, name, mode)
SELECT id, mac, name, mode FROM former_streams WHERE id = kept;
SELECT setval('logstreams_id_seq', coalesce(max(id), 0) + 1, false) FROM logstreams;

-- Weeks get partitions, but for those of clocks that were wrong. A time without zone (before
-- WalT 10) is one of this server.
SELECT count(ensure_log_partition(week)) FROM (
    SELECT DISTINCT date_trunc('week', timestamp::timestamptz) AS week FROM walt_former.logs
    WHERE timestamp > now() - interval '15 years' AND timestamp < now() + interval '1 day'
) AS weeks;

INSERT INTO logs (stream_id, timestamp, line, place, arrival)
SELECT
    s.kept, l.timestamp, coalesce(l.line, ''), l.timestamp,
    row_number() OVER (ORDER BY l.timestamp)
FROM walt_former.logs l JOIN former_streams s ON s.id = l.stream_id
WHERE l.timestamp IS NOT NULL;
