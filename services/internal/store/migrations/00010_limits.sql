-- Flow control by key. Only executions of flows with limits have rows here (executions.limited).

-- +goose Up
-- A place at one key, of one execution: it waits, is held until the execution is final, and is free then, so that a retry can take it anew. The
-- transaction that ends an execution frees its slots. Written only under the lock of the execution's row, or with its insert.
CREATE TABLE slots (
    execution_id uuid             NOT NULL,
    key          text             NOT NULL,
    kind         text             NOT NULL,
    value        text             NOT NULL DEFAULT '',
    keys         text[]           NOT NULL, -- of all slots of the execution
    most         int              NOT NULL, -- 0: the window of the pool
    pool         text             NOT NULL DEFAULT '',
    rank         double precision NOT NULL DEFAULT 0,
    state        text             NOT NULL CHECK (state IN ('waiting', 'held', 'free')),
    reason       text             NOT NULL DEFAULT '', -- its execution is being cancelled to make room
    PRIMARY KEY (execution_id, key)
);
CREATE INDEX slots_waiting ON slots (key, rank, execution_id) WHERE state = 'waiting';
CREATE INDEX slots_held ON slots (key, execution_id) WHERE state = 'held';

-- When a rate's bucket is full again. A row that is in the past says nothing.
CREATE TABLE rates (
    key     text        PRIMARY KEY,
    full_at timestamptz NOT NULL
);
CREATE INDEX rates_full ON rates (full_at);

-- Virtual times of fairness: of a group (value '') and of its values. A value's that is not past its group's says nothing.
CREATE TABLE turns (
    grp     text             NOT NULL,
    value   text             NOT NULL,
    virtual double precision NOT NULL,
    at      timestamptz      NOT NULL DEFAULT now(),
    PRIMARY KEY (grp, value)
);
CREATE INDEX turns_at ON turns (at);

-- Executions that wait for starts to cease, and the inputs of those that collect.
CREATE TABLE debounces (
    key          text        PRIMARY KEY,
    execution_id uuid        NOT NULL,
    first_at     timestamptz NOT NULL,
    longest_at   timestamptz NOT NULL,
    count        int         NOT NULL,
    size         int         NOT NULL,
    rates        jsonb       NOT NULL DEFAULT '[]'
);
CREATE INDEX debounces_execution ON debounces (execution_id);
CREATE TABLE debounced_inputs (
    execution_id uuid   NOT NULL,
    n            bigint GENERATED ALWAYS AS IDENTITY,
    start_id     uuid   NOT NULL,
    input        bytea  NOT NULL,
    PRIMARY KEY (execution_id, start_id)
);

GRANT SELECT, INSERT, UPDATE ON slots TO flow_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON slots TO flow_orchestrator;
GRANT SELECT, INSERT, UPDATE, DELETE ON rates, turns, debounces, debounced_inputs TO flow_gateway, flow_orchestrator;
GRANT UPDATE ON idempotency_keys TO flow_gateway, flow_orchestrator;

-- +goose Down
REVOKE UPDATE ON idempotency_keys FROM flow_gateway, flow_orchestrator;
DROP TABLE debounced_inputs, debounces, turns, rates, slots;
