-- Weeks of log lines that were moved to files (logs.archive). What is `gone` is not read any
-- more; its file is still to be removed.
CREATE TABLE logarchives (
    name text PRIMARY KEY,
    week date NOT NULL,
    made timestamptz NOT NULL DEFAULT now(),
    gone timestamptz,
    lines bigint NOT NULL,
    size bigint NOT NULL,
    first timestamptz NOT NULL,
    last timestamptz NOT NULL,
    first_place timestamptz NOT NULL,
    last_place timestamptz NOT NULL
);
CREATE INDEX logarchives_week_idx ON logarchives (week);

-- Lines of each stream in each file. A stream that logstreams has no more was forgotten.
CREATE TABLE logarchivestreams (
    archive text NOT NULL REFERENCES logarchives (name) ON DELETE CASCADE,
    stream_id integer NOT NULL,
    lines bigint NOT NULL,
    last_place timestamptz NOT NULL,
    PRIMARY KEY (archive, stream_id)
);
CREATE INDEX logarchivestreams_stream_id_idx ON logarchivestreams (stream_id);

-- Files that are being written: what their names begin with. After a cut they are removed.
CREATE TABLE logarchiveattempts (
    prefix text PRIMARY KEY
);

-- Which platform an archive belongs to: another one's is never touched.
CREATE TABLE logarchiveowner (
    platform uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO logarchiveowner DEFAULT VALUES;
