-- What users steer. hold says what of flow control an execution waits for, paused who paused it; limited and undoes are facts of its flow's version
-- that the rules need at its end and at a cancel, fixed at accept.

-- +goose Up
ALTER TABLE executions
    ADD COLUMN paused  text    NOT NULL DEFAULT '',
    ADD COLUMN limited boolean NOT NULL DEFAULT false,
    ADD COLUMN undoes  boolean NOT NULL DEFAULT false;

-- +goose Down
ALTER TABLE executions DROP COLUMN paused, DROP COLUMN limited, DROP COLUMN undoes;
