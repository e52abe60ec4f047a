-- Tasks for workers of the users' own. One row for each try of a task.remote step, made with its wait; see protocol.RemoteTask.

-- +goose Up
CREATE TABLE remote_tasks (
    id           uuid        PRIMARY KEY, -- made of execution, node, iteration, try and retries; the key of its wait
    project_id   uuid        NOT NULL REFERENCES projects,
    execution_id uuid        NOT NULL,
    node         text        NOT NULL,
    iteration    text        NOT NULL DEFAULT '',
    try          int         NOT NULL,
    priority     smallint    NOT NULL, -- 0 is the highest
    lease        int         NOT NULL DEFAULT 0, -- fences; 0: nobody has leased it
    heartbeat    interval    NOT NULL,
    created_at   timestamptz NOT NULL,
    due          timestamptz,
    leased_until timestamptz,
    seen_at      timestamptz,
    ended_at     timestamptz,
    queue        text        NOT NULL,
    worker       text        NOT NULL DEFAULT '',
    outcome      text        NOT NULL DEFAULT '' CHECK (outcome IN ('', 'completed', 'failed', 'lost', 'expired', 'cancelled')),
    answer       bytea, -- SHA-256 of what it ended with
    input_ref    bytea, -- SHA-256 of a value that stands in payloads, of its execution
    input_size   int         NOT NULL DEFAULT 0,
    input        bytea, -- gone when it has ended
    progress     bytea
) WITH (fillfactor = 70);
CREATE INDEX remote_tasks_waiting ON remote_tasks (project_id, queue, priority, created_at, id) WHERE ended_at IS NULL AND leased_until IS NULL;
CREATE INDEX remote_tasks_leased ON remote_tasks (project_id, queue, leased_until) WHERE ended_at IS NULL AND leased_until IS NOT NULL;
CREATE INDEX remote_tasks_lost ON remote_tasks (leased_until) WHERE ended_at IS NULL AND lease >= 5;
CREATE INDEX remote_tasks_execution ON remote_tasks (execution_id);

-- A token of the role worker may do nothing but work on remote tasks, and that in its queues (null: in all).
ALTER TABLE tokens DROP CONSTRAINT tokens_role_check,
    ADD CONSTRAINT tokens_role_check CHECK (role IN ('worker', 'viewer', 'editor', 'operator', 'admin')),
    ADD COLUMN queues text[];

GRANT SELECT, UPDATE ON remote_tasks TO flow_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON remote_tasks TO flow_orchestrator;

-- +goose Down
DELETE FROM tokens WHERE role = 'worker';
ALTER TABLE tokens DROP CONSTRAINT tokens_role_check, DROP COLUMN queues,
    ADD CONSTRAINT tokens_role_check CHECK (role IN ('viewer', 'editor', 'operator', 'admin'));
DROP TABLE remote_tasks;
