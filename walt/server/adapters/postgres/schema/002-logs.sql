-- Logs, partitioned by time: retention is a DROP of old partitions. Lines with
-- a timestamp of another period (given by their sender) go to logs_default.

CREATE TYPE logmode AS ENUM ('line', 'chunk');

CREATE TABLE logstreams (
    id serial PRIMARY KEY,
    issuer_mac text NOT NULL REFERENCES devices (mac) ON DELETE CASCADE,
    name text NOT NULL,
    mode logmode NOT NULL DEFAULT 'line'
);
CREATE UNIQUE INDEX logstreams_issuer_mac_name_idx ON logstreams (issuer_mac, name);

CREATE TABLE logs (
    stream_id integer NOT NULL,
    timestamp timestamptz NOT NULL,
    line text NOT NULL
) PARTITION BY RANGE (timestamp);
CREATE INDEX logs_timestamp_idx ON logs (timestamp);
CREATE INDEX logs_stream_id_idx ON logs (stream_id);
CREATE TABLE logs_default PARTITION OF logs DEFAULT;

-- Create the partition of one week (the one of `day`) unless it exists.
CREATE FUNCTION ensure_log_partition(day timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first timestamptz := date_trunc('week', day);
    part text := 'logs_' || to_char(first, 'YYYYMMDD');
BEGIN
    IF to_regclass(part) IS NULL THEN
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF logs FOR VALUES FROM (%L) TO (%L)',
            part, first, first + interval '7 days'
        );
    END IF;
END
$$;
