-- Daily partitions of executions and reports. Services have no right to make tables: they call these functions, which run as the owner.

-- +goose Up
-- +goose StatementBegin
-- The smallest UUIDv7 of an instant.
CREATE FUNCTION flow_first_id(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Makes what is missing of the partitions from yesterday (clocks differ) to so many days from now, UTC; returns how many it made.
-- A partition is built beside the table and then attached: ATTACH lets readers and writers go on, CREATE … PARTITION OF would not.
CREATE FUNCTION flow_ensure_partitions(days_ahead int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
    parent record;
    day    date;
    part   text;
    made   int := 0;
BEGIN
    IF days_ahead < 0 OR days_ahead > 366 THEN
        RAISE EXCEPTION 'days_ahead is %, it must be 0 to 366', days_ahead;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('flow_ensure_partitions'));
    FOR parent IN SELECT * FROM (VALUES ('executions', 'WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)'), ('reports', '')) AS p (name, options) LOOP
        FOR day IN SELECT (now() AT TIME ZONE 'UTC')::date + d FROM generate_series(-1, days_ahead) AS d LOOP
            part := parent.name || '_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN EXISTS (
                SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = parent.name::regclass AND c.relname = part);
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) %s', part, parent.name, parent.options);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent.name, part,
                flow_first_id(day::timestamp AT TIME ZONE 'UTC'), flow_first_id((day + 1)::timestamp AT TIME ZONE 'UTC'));
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Drops the partitions of a day (UTC) when every execution in them is final and ended before a time. What is left of them elsewhere (payloads,
-- waits, signals) is deleted afterwards, in batches, by the ranges of ids that have no partition. Returns
--   missing  there is no such day (any more)
--   in use   an execution of that day isn't final, or ended later
--   locked   somebody holds a lock on the tables and did not let go within patience_ms
--   dropped
--
-- The check reads the whole day: it is made once, under a lock that only keeps writers of that day away. Then comes ACCESS EXCLUSIVE on the
-- parents, which all others queue behind while we wait for it: so that wait is a second at most, and shorter than deadlock_timeout, so that who
-- gives up is always this function.
CREATE FUNCTION flow_drop_partitions(day date, finished_before timestamptz, patience_ms int) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
SET lock_timeout = '900ms'
AS $$
DECLARE
    suffix text := to_char(day, 'YYYYMMDD');
    busy   boolean;
BEGIN
    IF day >= (now() AT TIME ZONE 'UTC')::date - 1 THEN
        RAISE EXCEPTION 'partitions of % are in use', day;
    END IF;
    IF to_regclass('executions_' || suffix) IS NULL THEN
        RETURN 'missing';
    END IF;
    PERFORM set_config('lock_timeout', least(greatest(patience_ms, 1), 900) || 'ms', true);
    BEGIN
        EXECUTE format('LOCK TABLE %I IN SHARE ROW EXCLUSIVE MODE', 'executions_' || suffix);
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE state IN (''queued'', ''running'', ''waiting'') OR finished_at >= $1)', 'executions_' || suffix)
            INTO busy USING finished_before;
        IF busy THEN
            RETURN 'in use';
        END IF;
        LOCK TABLE ONLY executions, ONLY reports IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('DROP TABLE %I', 'executions_' || suffix);
        EXECUTE format('DROP TABLE IF EXISTS %I', 'reports_' || suffix);
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
        RETURN 'locked';
    END;
    RETURN 'dropped';
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Nobody may change or delete what stands in the audit; only what is older than a bound goes, and the bound is 90 days at least.
CREATE FUNCTION flow_purge_audit(before timestamptz, batch int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
DECLARE
    gone int;
BEGIN
    IF before > now() - interval '90 days' THEN
        RAISE EXCEPTION 'the audit is kept for 90 days at least, this would delete up to %', before;
    END IF;
    DELETE FROM audit WHERE id = ANY (ARRAY(SELECT id FROM audit WHERE id < flow_first_id(before) AND at < before ORDER BY id LIMIT batch));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- Which migration the schema stands at; for roles that may read no table.
CREATE FUNCTION flow_schema_version() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, pg_temp
AS $$ SELECT coalesce(max(version_id), 0) FROM schema_migrations WHERE is_applied $$;
-- +goose StatementEnd

SELECT flow_ensure_partitions(7);

-- +goose Down
DROP FUNCTION flow_schema_version(), flow_drop_partitions(date, timestamptz, int), flow_purge_audit(timestamptz, int), flow_ensure_partitions(int), flow_first_id(timestamptz);
