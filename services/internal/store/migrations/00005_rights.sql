-- Who may do what. A role that isn't named for a table has no right on it.

-- +goose Up
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO flow_gateway, flow_orchestrator, flow_worker;
REVOKE ALL ON FUNCTION flow_ensure_partitions(int), flow_drop_partitions(date, timestamptz, int), flow_purge_audit(timestamptz, int) FROM PUBLIC;

-- The gateway: definitions, people, audit; accepts, wakes and cancels executions.
GRANT SELECT, INSERT, UPDATE, DELETE ON users, tokens, refresh_tokens, flows, flow_versions, schedules, credentials, hooks TO flow_gateway;
GRANT SELECT, INSERT ON audit TO flow_gateway;
GRANT SELECT, INSERT, UPDATE ON executions, waits, signals TO flow_gateway;
GRANT SELECT, INSERT ON reports, payloads TO flow_gateway;
GRANT SELECT, INSERT, DELETE ON idempotency_keys TO flow_gateway;
GRANT SELECT ON projects, platform, cursors, settings, sessions, dead_letters, decisions, terms, fires TO flow_gateway;

-- The orchestrator: what runs, and what leads.
GRANT SELECT, INSERT, UPDATE, DELETE ON executions, reports, payloads, waits, signals, sessions, settings, decisions, dead_letters, fires, cursors TO flow_orchestrator;
GRANT SELECT, INSERT, DELETE ON idempotency_keys TO flow_orchestrator;
GRANT SELECT, INSERT ON terms, audit TO flow_orchestrator;
GRANT SELECT, UPDATE ON schedules, platform TO flow_orchestrator;
GRANT SELECT ON projects, flows, flow_versions, hooks TO flow_orchestrator;
GRANT EXECUTE ON FUNCTION flow_ensure_partitions(int), flow_drop_partitions(date, timestamptz, int), flow_purge_audit(timestamptz, int) TO flow_orchestrator;

-- The worker reads flow versions, from the replica where there is one. It writes nothing.
GRANT SELECT ON flow_versions TO flow_worker;

-- +goose Down
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM flow_gateway, flow_orchestrator, flow_worker;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM flow_gateway, flow_orchestrator, flow_worker;
REVOKE ALL ON SCHEMA public FROM flow_gateway, flow_orchestrator, flow_worker;
