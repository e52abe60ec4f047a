-- Roles of the platform and what holds for every session of theirs. Roles belong to the whole server, so this file copes with servers that
-- have them already (another database, the postgres job) and with two migrations at once. Passwords are given by who runs the server; without one
-- nobody logs in, unless the server asks for none (tests).

-- +goose Up
-- +goose StatementBegin
DO $$
DECLARE
    want record;
    tries int;
BEGIN
    FOR want IN SELECT unnest(ARRAY['flow_owner', 'flow_gateway', 'flow_orchestrator', 'flow_worker']) AS name LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = want.name);
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN', want.name);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- another migration on this server was faster
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'role % is missing and % may not create it', want.name, current_user
                    USING HINT = 'As a superuser: CREATE ROLE ' || want.name || '; or ALTER ROLE ' || current_user || ' CREATEROLE; then migrate again.';
        END;
    END LOOP;

    FOR want IN
        SELECT r.name, s.setting, s.value
        FROM (VALUES
            -- A 2xx means committed: never traded for speed.
            ('*', 'synchronous_commit', 'on'),
            -- A client that is paused inside a transaction holds row locks: the server lets go of them.
            ('*', 'idle_in_transaction_session_timeout', '10s'),
            ('*', 'lock_timeout', '5s'),
            -- A client that is gone without a word.
            ('*', 'tcp_keepalives_idle', '15s'),
            ('*', 'tcp_keepalives_interval', '5s'),
            ('*', 'tcp_keepalives_count', '3'),
            ('flow_gateway', 'statement_timeout', '30s'),
            ('flow_orchestrator', 'statement_timeout', '30s'),
            ('flow_worker', 'statement_timeout', '10s')
        ) AS s (who, setting, value)
        JOIN unnest(ARRAY['flow_gateway', 'flow_orchestrator', 'flow_worker']) AS r (name) ON s.who IN ('*', r.name)
    LOOP
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_catalog.pg_db_role_setting d JOIN pg_catalog.pg_roles o ON o.oid = d.setrole
            WHERE d.setdatabase = 0 AND o.rolname = want.name AND (want.setting || '=' || want.value) = ANY (d.setconfig));
        tries := 0;
        LOOP
            BEGIN
                EXECUTE format('ALTER ROLE %I SET %s = %L', want.name, want.setting, want.value);
                EXIT;
            EXCEPTION
                WHEN insufficient_privilege THEN
                    -- The roles are another's, who has limits of his own (the postgres job). What must hold, the services check on every connection.
                    RAISE NOTICE 'role % stays without % = %: % may not set it', want.name, want.setting, want.value, current_user;
                    EXIT;
                WHEN internal_error OR serialization_failure OR unique_violation THEN
                    tries := tries + 1; -- "tuple concurrently updated": another migration on this server writes the same row
                    IF tries > 50 THEN RAISE; END IF;
                    PERFORM pg_sleep(0.02);
            END;
        END LOOP;
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose Down
SELECT 1; -- roles may own things in other databases of this server: they stay
