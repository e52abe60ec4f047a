-- What people do with running flows: pause, retry, replay, and all of these for many executions at once.

-- +goose Up

-- seeded: a replay, whose first report (attempt 1, seq 0) was written with it. restarted_at: when a retry gave it a new deadline (null: never).
ALTER TABLE executions
    ADD COLUMN seeded       boolean NOT NULL DEFAULT false,
    ADD COLUMN restarted_at timestamptz;
-- Only what is paused stands in it: nothing else ever touches it.
CREATE INDEX executions_paused ON executions (flow_id, id) WHERE paused <> '';
CREATE INDEX executions_hushed ON executions (owner) WHERE owner IS NOT NULL AND paused <> '';

-- Pauses of node types and pools; that of a flow stands with the flow.
CREATE TABLE pauses (
    kind   text        NOT NULL CHECK (kind IN ('node-type', 'pool')),
    name   text        NOT NULL,
    reason text        NOT NULL,
    set_by text        NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, name)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON pauses TO flow_gateway;
GRANT SELECT ON pauses TO flow_orchestrator;

-- One action over many executions. The leader works it off; the counts are written with the items that they count.
CREATE TABLE bulk_jobs (
    id          uuid        PRIMARY KEY,
    project_id  uuid        NOT NULL DEFAULT '00000000-0000-7000-8000-000000000001' REFERENCES projects,
    action      text        NOT NULL CHECK (action IN ('cancel', 'retry', 'replay')),
    asked_by    text        NOT NULL,
    rate        int         NOT NULL CHECK (rate BETWEEN 1 AND 10000), -- items a second
    total       int         NOT NULL,
    done        int         NOT NULL DEFAULT 0,
    failed      int         NOT NULL DEFAULT 0,
    skipped     int         NOT NULL DEFAULT 0,
    scope       text        NOT NULL DEFAULT '', -- with key: Idempotency-Key of the call that made it
    key         text        NOT NULL DEFAULT '',
    body_hash   bytea,
    created_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    finished_at timestamptz,
    stopped_by  text        NOT NULL DEFAULT '' -- who cancelled the job: what is left of it is skipped
);
CREATE UNIQUE INDEX bulk_jobs_key ON bulk_jobs (scope, key) WHERE key <> '';
CREATE INDEX bulk_jobs_open ON bulk_jobs (id) WHERE finished_at IS NULL;

-- outcome is written in the transaction that does what it says, so each item is done once, whoever leads.
CREATE TABLE bulk_items (
    job_id       uuid        NOT NULL REFERENCES bulk_jobs ON DELETE CASCADE,
    n            int         NOT NULL,
    execution_id uuid        NOT NULL,
    outcome      text        NOT NULL DEFAULT '' CHECK (outcome IN ('', 'done', 'failed', 'skipped')),
    reason       text        NOT NULL DEFAULT '',
    result_id    uuid, -- the execution that a replay made
    at           timestamptz,
    PRIMARY KEY (job_id, n)
);
GRANT SELECT, INSERT ON bulk_jobs, bulk_items TO flow_gateway;
GRANT UPDATE (stopped_by, total) ON bulk_jobs TO flow_gateway;
GRANT SELECT, UPDATE, DELETE ON bulk_jobs, bulk_items TO flow_orchestrator;

-- +goose Down
DROP TABLE bulk_items, bulk_jobs, pauses;
DROP INDEX executions_paused, executions_hushed;
ALTER TABLE executions DROP COLUMN seeded, DROP COLUMN restarted_at;
