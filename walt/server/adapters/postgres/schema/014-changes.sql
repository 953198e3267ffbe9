-- What changed on the platform (walt.server.domain.devices.changes). Rows are only added, in the
-- transaction of the change itself. Devices that are gone stay in it: no keys refer to others.
CREATE TABLE changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL UNIQUE,
    moment timestamptz NOT NULL DEFAULT now(),
    who text,
    kind text NOT NULL CHECK (kind IN ('device', 'name', 'model', 'image', 'owner', 'setting',
                                       'link', 'stored-image')),
    mac text,
    item text NOT NULL DEFAULT '',
    before text,
    after text
);
CREATE INDEX changes_moment_idx ON changes (moment, id);

CREATE FUNCTION changes_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of the table changes are only added'
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER changes_stay BEFORE UPDATE OR DELETE ON changes
    FOR EACH ROW EXECUTE FUNCTION changes_stay();
