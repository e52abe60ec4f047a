-- What runs: executions, their reports, waits, signals, sessions. The hot path writes here.
--
-- Indexes of executions name only columns that the hot path leaves alone, so that its updates stay HOT (heap only: no index is touched):
--   queued -> succeeded           changes none of them
--   queued -> running -> final    changes owner, twice
--   anything -> queued again      changes queued_tx
-- No index names the state, not even as a predicate: it would make every update touch every index.

-- +goose Up
CREATE TABLE executions (
    id              uuid        NOT NULL,
    project_id      uuid        NOT NULL,
    flow_id         uuid        NOT NULL,
    owner           uuid,   -- session that claimed it
    parent_id       uuid,
    root_id         uuid,   -- of a tree of children; null: itself
    replay_of       uuid,
    run             bigint      NOT NULL DEFAULT 0,
    queued_tx       bigint      NOT NULL, -- transaction that last made it queued: the reconciler's cursor
    created_at      timestamptz NOT NULL,
    queued_at       timestamptz NOT NULL DEFAULT now(),
    started_at      timestamptz,
    finished_at     timestamptz,
    deadline        timestamptz,
    flow_version    int         NOT NULL,
    attempt         int         NOT NULL DEFAULT 1,
    seq             int         NOT NULL DEFAULT 0,
    handed          int         NOT NULL DEFAULT 0,
    shard           int         NOT NULL DEFAULT 0,
    deaths          int         NOT NULL DEFAULT 0,
    retries         int         NOT NULL DEFAULT 0,
    input_size      int         NOT NULL DEFAULT 0,
    output_size     int         NOT NULL DEFAULT 0,
    state           text        NOT NULL DEFAULT 'queued'
                    CHECK (state IN ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled', 'timed_out')),
    hold            text        NOT NULL DEFAULT '', -- why it must not be handed out now
    cancel          text        NOT NULL DEFAULT '' CHECK (cancel IN ('', 'cancelled', 'timed_out')),
    priority        text        NOT NULL DEFAULT 'normal',
    pool            text        NOT NULL DEFAULT '',
    trigger         text        NOT NULL DEFAULT '',
    client          text        NOT NULL DEFAULT '',
    idempotency_key text        NOT NULL DEFAULT '',
    labels          jsonb       NOT NULL DEFAULT '{}',
    input_codec     text        NOT NULL DEFAULT '',
    output_codec    text        NOT NULL DEFAULT '',
    error_codec     text        NOT NULL DEFAULT '',
    input_ref       bytea, -- SHA-256 of a value that stands in payloads
    output_ref      bytea,
    input           bytea,
    output          bytea,
    error           bytea,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
COMMENT ON TABLE executions IS 'One run of one flow version each. Daily partitions by id (UUIDv7), made days ahead by flow_ensure_partitions(); there is no default partition on purpose: it would hide a missing one and stand in the way of DETACH CONCURRENTLY.';

CREATE INDEX executions_flow ON executions (flow_id, id);
CREATE INDEX executions_queued_tx ON executions (queued_tx);
CREATE INDEX executions_owner ON executions (owner) WHERE owner IS NOT NULL;
CREATE INDEX executions_cancel ON executions (owner) WHERE owner IS NOT NULL AND cancel <> '';
CREATE INDEX executions_deadline ON executions (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX executions_parent ON executions (parent_id) WHERE parent_id IS NOT NULL;

-- One row per report, not per step: events is the JSON list that the worker sent. seq 0 was written by the platform itself (a wake).
-- logs is what nodes logged meanwhile, for people: a column here and no table of its own, because it comes with the report, goes with it, and costs no second row.
CREATE TABLE reports (
    execution_id uuid        NOT NULL,
    attempt      int         NOT NULL,
    seq          int         NOT NULL,
    at           timestamptz NOT NULL DEFAULT now(),
    codec        text        NOT NULL DEFAULT '',
    events       bytea       NOT NULL,
    logs         bytea, -- JSON list of log lines
    PRIMARY KEY (execution_id, attempt, seq)
) PARTITION BY RANGE (execution_id);

-- Values too large for a row or a message; they die with their execution.
CREATE TABLE payloads (
    execution_id uuid        NOT NULL,
    sha256       bytea       NOT NULL,
    codec        text        NOT NULL DEFAULT '',
    size         int         NOT NULL,
    data         bytea       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (execution_id, sha256)
);

-- A wait lives until it is met, across attempts. closed_at: the execution ended while it was open.
CREATE TABLE waits (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    execution_id uuid        NOT NULL,
    node         text        NOT NULL,
    iteration    text        NOT NULL DEFAULT '',
    kind         text        NOT NULL,
    key          text        NOT NULL DEFAULT '',
    reason       text        NOT NULL DEFAULT '',
    due          timestamptz,
    since        timestamptz NOT NULL,
    met_at       timestamptz,
    closed_at    timestamptz
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX waits_open ON waits (execution_id, node, iteration) WHERE met_at IS NULL AND closed_at IS NULL;
CREATE INDEX waits_due ON waits (due) WHERE met_at IS NULL AND closed_at IS NULL AND due IS NOT NULL;
CREATE INDEX waits_key ON waits (kind, key) WHERE met_at IS NULL AND closed_at IS NULL AND key <> '';
CREATE INDEX waits_execution ON waits (execution_id, id);

CREATE TABLE signals (
    id           uuid        PRIMARY KEY,
    project_id   uuid        NOT NULL REFERENCES projects,
    execution_id uuid, -- null: whoever waits for (name, key)
    name         text        NOT NULL,
    key          text        NOT NULL DEFAULT '',
    codec        text        NOT NULL DEFAULT '',
    data         bytea,
    sender       text        NOT NULL DEFAULT '',
    at           timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    taken_by     uuid,
    taken_at     timestamptz
);
CREATE INDEX signals_execution ON signals (execution_id, name) WHERE execution_id IS NOT NULL;
CREATE INDEX signals_key ON signals (project_id, name, key) WHERE taken_at IS NULL AND execution_id IS NULL;

CREATE TABLE sessions (
    id         uuid        PRIMARY KEY,
    worker     text        NOT NULL,
    pool       text        NOT NULL DEFAULT '',
    host       text        NOT NULL DEFAULT '',
    version    text        NOT NULL DEFAULT '',
    allocation text        NOT NULL DEFAULT '',
    slots      int         NOT NULL DEFAULT 0,
    weight     int         NOT NULL DEFAULT 1,
    beat       bigint      NOT NULL DEFAULT 1,
    alive      boolean     NOT NULL DEFAULT true,
    opened_at  timestamptz NOT NULL DEFAULT now(),
    beat_at    timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz,
    end_reason text        NOT NULL DEFAULT '',
    settled_at timestamptz -- long dead and owning nothing: nobody looks again
) WITH (fillfactor = 50);
CREATE INDEX sessions_alive ON sessions (id) WHERE alive;
CREATE INDEX sessions_dead ON sessions (id) WHERE NOT alive AND settled_at IS NULL;

CREATE TABLE idempotency_keys (
    scope        text        NOT NULL,
    key          text        NOT NULL,
    body_hash    bytea       NOT NULL,
    execution_id uuid        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

CREATE TABLE dead_letters (
    id           uuid        PRIMARY KEY,
    project_id   uuid        NOT NULL DEFAULT '00000000-0000-7000-8000-000000000001' REFERENCES projects,
    kind         text        NOT NULL,
    reason       text        NOT NULL,
    detail       text        NOT NULL DEFAULT '',
    origin       text        NOT NULL DEFAULT '',
    execution_id uuid,
    codec        text        NOT NULL DEFAULT '',
    body         bytea,
    count        int         NOT NULL DEFAULT 1,
    at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dead_letters_at ON dead_letters (at);
CREATE INDEX dead_letters_execution ON dead_letters (execution_id) WHERE execution_id IS NOT NULL;

-- Leadership as PostgreSQL sees it: one row per term.
CREATE TABLE terms (
    term      bigint      PRIMARY KEY,
    holder    text        NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT now()
);

-- What a leader decided (scale, fire, tune), written and fenced before it is done.
CREATE TABLE decisions (
    id           uuid        PRIMARY KEY,
    term         bigint      NOT NULL REFERENCES terms,
    kind         text        NOT NULL,
    subject      text        NOT NULL DEFAULT '',
    reason       text        NOT NULL,
    detail_codec text        NOT NULL DEFAULT '',
    detail       bytea,
    at           timestamptz NOT NULL DEFAULT now(),
    done_at      timestamptz,
    outcome      text        NOT NULL DEFAULT ''
);
CREATE INDEX decisions_kind ON decisions (kind, id);
CREATE INDEX decisions_pending ON decisions (id) WHERE done_at IS NULL;

-- How far the leader's scans have come, so that a new leader doesn't begin at the first row.
CREATE TABLE cursors (
    name       text        PRIMARY KEY,
    position   bigint      NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE cursors, decisions, terms, dead_letters, idempotency_keys, sessions, signals, waits, payloads, reports, executions;
