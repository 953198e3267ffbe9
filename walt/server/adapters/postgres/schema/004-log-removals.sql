-- Streams of forgotten devices, whose lines are deleted little by little: one large
-- transaction would hold up everything else.
CREATE TABLE logremovals (
    stream_id integer PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT now()
);

-- Create the partition of one week (the one of `day`) unless it exists. It is attached once
-- it is complete, which locks out neither readers nor writers of the other ones; lines that
-- the default partition has from that week (the clock of the server had jumped) move.
CREATE OR REPLACE FUNCTION ensure_log_partition(day timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    first timestamptz := date_trunc('week', day);
    part text := 'logs_' || to_char(first, 'YYYYMMDD');
BEGIN
    IF to_regclass(part) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE logs INCLUDING ALL)', part);
        EXECUTE format(
            'WITH moved AS (DELETE FROM logs_default WHERE timestamp >= %L AND timestamp < %L'
            ' RETURNING *) INSERT INTO %I SELECT * FROM moved',
            first, first + interval '7 days', part
        );
        EXECUTE format(
            'ALTER TABLE logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            part, first, first + interval '7 days'
        );
    END IF;
END
$$;
