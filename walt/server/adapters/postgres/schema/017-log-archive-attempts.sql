-- An attempt that was taken: its files are being removed, nothing can record them any more.
ALTER TABLE logarchiveattempts ADD COLUMN abandoned boolean NOT NULL DEFAULT false;

-- Files whose rows are being added are `gone` for infinity: nobody reads them before their week
-- is dropped, which takes one short transaction then.

-- Lines that came to the table of a week since it is due, by the number of arrival.
CREATE TABLE logarchivelate (
    part text NOT NULL,
    arrival bigint NOT NULL
);
CREATE INDEX logarchivelate_part_arrival_idx ON logarchivelate (part, arrival);
CREATE FUNCTION note_late_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO logarchivelate (part, arrival) VALUES (TG_TABLE_NAME, NEW.arrival);
    RETURN NULL;
END
$$;

-- Lines of weeks that are in files already: all of them become one file, once in a while.
ALTER TABLE logarchiveowner
    ADD COLUMN late_before timestamptz,
    ADD COLUMN late_moved timestamptz NOT NULL DEFAULT now();
CREATE VIEW logs_late AS
    SELECT stream_id, timestamp, line, place, arrival FROM logs_default
    WHERE timestamp < (SELECT late_before FROM logarchiveowner);
