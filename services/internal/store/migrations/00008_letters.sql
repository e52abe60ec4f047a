-- What meets a wait from outside: signals, decisions on approvals, ended children, completions of remote tasks. And who called whom.

-- +goose Up
DROP TABLE signals; -- nothing wrote it yet

-- execution_id null: to whoever waits for (project, kind, key); who takes it is written there. pending: an execution may wait for it already, and whoever committed it
-- has yet to look; see protocol.Post.
CREATE TABLE letters (
    id           uuid        PRIMARY KEY,
    project_id   uuid        NOT NULL REFERENCES projects,
    execution_id uuid,
    kind         text        NOT NULL,
    key          text        NOT NULL DEFAULT '',
    port         text        NOT NULL DEFAULT '',
    codec        text        NOT NULL DEFAULT '',
    output       bytea,
    output_size  int         NOT NULL DEFAULT 0,
    output_ref   bytea, -- SHA-256 of a value that stands in payloads, of this execution
    error        bytea,
    sender       text        NOT NULL DEFAULT '',
    at           timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    pending      boolean     NOT NULL DEFAULT false,
    taken_by     uuid,
    taken_at     timestamptz
);
CREATE INDEX letters_execution ON letters (execution_id, kind, key) WHERE execution_id IS NOT NULL;
CREATE INDEX letters_key ON letters (project_id, kind, key, at, id) WHERE execution_id IS NULL AND taken_at IS NULL;
CREATE INDEX letters_pending ON letters (at) WHERE pending;

-- Who waits longest for a key comes first.
DROP INDEX waits_key;
CREATE INDEX waits_key ON waits (kind, key, id) WHERE met_at IS NULL AND closed_at IS NULL AND key <> '';

-- What an approval says to those who decide. approvers: e-mail addresses and roles; empty: every operator; null: it is no approval.
ALTER TABLE waits ADD COLUMN approvers text[], ADD COLUMN form bytea;
CREATE INDEX waits_approvals ON waits (id) WHERE met_at IS NULL AND closed_at IS NULL AND approvers IS NOT NULL;

-- One row per call of a flow.call step; it makes the call unique, and dies with the caller.
CREATE TABLE calls (
    execution_id uuid        NOT NULL, -- the caller
    node         text        NOT NULL,
    iteration    text        NOT NULL DEFAULT '',
    retries      int         NOT NULL DEFAULT 0, -- of the caller, by users: a retry calls anew
    child_id     uuid        NOT NULL,
    depth        int         NOT NULL,
    at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (execution_id, node, iteration, retries)
);
CREATE UNIQUE INDEX calls_child ON calls (child_id);

-- calls: it has started children that it waits for, which end with it.
ALTER TABLE executions ADD COLUMN calls boolean NOT NULL DEFAULT false;

GRANT SELECT, INSERT, UPDATE ON letters TO flow_gateway;
GRANT SELECT ON calls TO flow_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON letters TO flow_orchestrator;
GRANT SELECT, INSERT, DELETE ON calls TO flow_orchestrator;

-- +goose Down
ALTER TABLE executions DROP COLUMN calls;
DROP TABLE calls, letters;
ALTER TABLE waits DROP COLUMN approvers, DROP COLUMN form;
DROP INDEX waits_key;
CREATE INDEX waits_key ON waits (kind, key) WHERE met_at IS NULL AND closed_at IS NULL AND key <> '';
CREATE TABLE signals (
    id           uuid        PRIMARY KEY,
    project_id   uuid        NOT NULL REFERENCES projects,
    execution_id uuid,
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
GRANT SELECT, INSERT, UPDATE ON signals TO flow_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON signals TO flow_orchestrator;
