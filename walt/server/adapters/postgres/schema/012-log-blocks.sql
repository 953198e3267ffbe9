-- The next rows of a cursor of log lines, as rows that a query can make columns of.
CREATE FUNCTION fetched_logs(cursor_name text, count integer)
    RETURNS TABLE (
        moment bigint, stream integer, place timestamptz, arrival bigint, line text
    ) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format('FETCH FORWARD %s FROM %I', count, cursor_name);
END
$$;
