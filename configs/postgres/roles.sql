-- Read in single-user mode before the server starts (start.sh): a statement ends with a semicolon and an empty line.
-- Who may do what to which table is the migrations' business; here are the roles, their passwords and their limits.
DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['flow_login', 'flow_owner', 'flow_gateway', 'flow_orchestrator', 'flow_worker'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
      EXECUTE format('CREATE ROLE %I', name);
    END IF;
  END LOOP;
END
$$;

{{ with nomadVar "nomad/jobs/postgres" -}}
ALTER ROLE flow_owner LOGIN CONNECTION LIMIT 10 PASSWORD '{{ .flow_owner_password }}';

ALTER ROLE flow_gateway LOGIN CONNECTION LIMIT 45 PASSWORD '{{ .flow_gateway_password }}';

ALTER ROLE flow_orchestrator LOGIN CONNECTION LIMIT 35 PASSWORD '{{ .flow_orchestrator_password }}';

ALTER ROLE flow_worker LOGIN CONNECTION LIMIT 105 PASSWORD '{{ .flow_worker_password }}';
{{- end }}

GRANT flow_login TO flow_owner, flow_gateway, flow_orchestrator, flow_worker;

DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['flow_owner', 'flow_gateway', 'flow_orchestrator', 'flow_worker'] LOOP
    EXECUTE format('ALTER ROLE %I SET synchronous_commit = on', name);
    EXECUTE format('ALTER ROLE %I SET timezone = %L', name, 'UTC');
  END LOOP;
  -- A client that is frozen within a transaction must not hold a shard's rows for hours.
  FOREACH name IN ARRAY ARRAY['flow_gateway', 'flow_orchestrator', 'flow_worker'] LOOP
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', name, '10s');
    EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', name, '5s');
  END LOOP;
  EXECUTE format('ALTER ROLE flow_worker SET default_transaction_read_only = on');
END
$$;

