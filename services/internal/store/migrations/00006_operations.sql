-- What people ask of the running platform, and what its leader says about it.

-- +goose Up

-- drain: who asked this worker to stop ('': nobody). The gateway sets it, the answer to the next renewal carries it. tuned: how many executions the leader wants it to run at once
-- (0: as many as its own limit), written under the leader's term.
ALTER TABLE sessions ADD COLUMN drain text NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN tuned int NOT NULL DEFAULT 0 CHECK (tuned >= 0);
GRANT UPDATE (drain) ON sessions TO flow_gateway;

-- Settings that change while running: the gateway checks what people ask for, and the leader checks again what it finds before it follows it.
GRANT INSERT, UPDATE, DELETE ON settings TO flow_gateway;

-- What the leader holds to be so (the settings it follows, what it refused and why), written under its term.
CREATE TABLE leader_state (
    name  text        PRIMARY KEY,
    term  bigint      NOT NULL,
    value bytea       NOT NULL, -- JSON
    at    timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON leader_state TO flow_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON leader_state TO flow_orchestrator;

-- A dead letter that somebody wants back is asked for in its row; the leader does it and writes the outcome. Only the gateway asks, and only these columns are its.
ALTER TABLE dead_letters
    ADD COLUMN asked_at   timestamptz,
    ADD COLUMN asked_by   text NOT NULL DEFAULT '',
    ADD COLUMN done_at    timestamptz,
    ADD COLUMN outcome    text NOT NULL DEFAULT '',
    ADD COLUMN edited_by  text NOT NULL DEFAULT '';
CREATE INDEX dead_letters_asked ON dead_letters (id) WHERE asked_at IS NOT NULL AND done_at IS NULL;
CREATE INDEX dead_letters_open ON dead_letters (reason, id) WHERE done_at IS NULL;
GRANT UPDATE (asked_at, asked_by, outcome, edited_by, body), DELETE ON dead_letters TO flow_gateway;

-- +goose Down
REVOKE UPDATE, DELETE ON dead_letters FROM flow_gateway;
REVOKE UPDATE (asked_at, asked_by, outcome, edited_by, body) ON dead_letters FROM flow_gateway;
ALTER TABLE dead_letters DROP COLUMN asked_at, DROP COLUMN asked_by, DROP COLUMN done_at, DROP COLUMN outcome, DROP COLUMN edited_by;
DROP TABLE leader_state;
REVOKE INSERT, UPDATE, DELETE ON settings FROM flow_gateway;
REVOKE UPDATE (drain) ON sessions FROM flow_gateway;
ALTER TABLE sessions DROP COLUMN tuned, DROP COLUMN drain;
