-- Logs that were kept when their device was forgotten belong to the name it had.
ALTER TABLE logstreams
    ADD COLUMN former text,
    ALTER COLUMN issuer_mac DROP NOT NULL,
    ADD CONSTRAINT logstreams_issuer_check CHECK ((issuer_mac IS NULL) <> (former IS NULL));
CREATE INDEX logstreams_former_idx ON logstreams (former);
