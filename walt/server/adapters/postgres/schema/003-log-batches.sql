-- The last batch of log lines that a running server stored: one whose answer was lost
-- with the connection is sent again, and must not be stored twice.
CREATE TABLE logbatches (
    writer uuid PRIMARY KEY,
    batch bigint NOT NULL
);

-- Streams are read by time: one index serves both, and costs less than the former.
DROP INDEX logs_stream_id_idx;
CREATE INDEX logs_stream_id_timestamp_idx ON logs (stream_id, timestamp);
