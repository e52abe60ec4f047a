-- Flows that start when executions of other flows end badly (trigger.error).

-- +goose Up
-- One row for each published version with such a trigger. names: names or ids of flows ({}: all others). states: the ends that count.
CREATE TABLE error_triggers (
    flow_id    uuid   PRIMARY KEY REFERENCES flows ON DELETE CASCADE,
    project_id uuid   NOT NULL,
    node       text   NOT NULL,
    names      text[] NOT NULL DEFAULT '{}',
    states     text[] NOT NULL
);

-- What the transaction that ends an execution badly leaves for the leader, where a trigger asks for it. Whoever decides on it deletes it, in the transaction that starts what it starts.
CREATE TABLE failures (
    execution_id uuid        NOT NULL,
    retries      int         NOT NULL, -- a retried execution may end badly again
    state        text        NOT NULL,
    error        bytea,
    at           timestamptz NOT NULL,
    PRIMARY KEY (execution_id, retries)
);

-- What became of a bad end at each trigger. above: the flows whose bad ends led to this one by such triggers, the first cause first.
CREATE TABLE catches (
    execution_id uuid        NOT NULL,
    retries      int         NOT NULL,
    flow_id      uuid        NOT NULL, -- that has the trigger
    node         text        NOT NULL,
    state        text        NOT NULL,
    started_id   uuid,
    above        uuid[]      NOT NULL,
    outcome      text        NOT NULL CHECK (outcome IN ('started', 'skipped', 'refused')),
    reason       text        NOT NULL DEFAULT '',
    at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (execution_id, retries, flow_id)
);
CREATE INDEX catches_started ON catches (started_id) WHERE started_id IS NOT NULL;
CREATE INDEX catches_at ON catches (at);

-- The gateway publishes triggers, and ends executions too (cancel): it leaves failures and decides on none.
GRANT SELECT, INSERT, DELETE ON error_triggers TO flow_gateway;
GRANT SELECT ON error_triggers TO flow_orchestrator;
GRANT SELECT, INSERT ON failures TO flow_gateway;
GRANT SELECT ON catches TO flow_gateway;
GRANT SELECT, INSERT, DELETE, UPDATE ON failures TO flow_orchestrator; -- UPDATE: for FOR UPDATE
GRANT SELECT, INSERT, DELETE ON catches TO flow_orchestrator;

-- +goose Down
DROP TABLE catches, failures, error_triggers;
