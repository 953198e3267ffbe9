-- The order of lines is (place, arrival). `arrival` numbers lines as they arrive. `place` is
-- the time of a line, but never before that of an earlier line of its stream
-- (walt.server.domain.logs.order): streams keep their own order whatever times senders gave.
-- Old lines have the order in which they lie in their tables.
DROP INDEX logs_timestamp_idx;
DROP INDEX logs_stream_id_timestamp_idx;
CREATE SEQUENCE old_arrivals;
ALTER TABLE logs
    ADD COLUMN place timestamptz GENERATED ALWAYS AS (timestamp) STORED,
    ADD COLUMN arrival bigint NOT NULL DEFAULT nextval('old_arrivals');
ALTER TABLE logs
    ALTER COLUMN place DROP EXPRESSION,
    ALTER COLUMN place SET NOT NULL,
    ALTER COLUMN arrival DROP DEFAULT;
DROP SEQUENCE old_arrivals;

-- Each start of the server takes the numbers of a million million lines.
CREATE SEQUENCE logarrivals START 1000000000000 INCREMENT BY 1000000000000;

CREATE INDEX logs_place_idx ON logs (place, arrival);
CREATE INDEX logs_stream_id_place_idx ON logs (stream_id, place);
-- Few lines have another place than their time: those that ranges of time would miss.
CREATE INDEX logs_displaced_idx ON logs (timestamp) WHERE place > timestamp;
