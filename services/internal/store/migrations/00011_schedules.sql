-- Schedules as people steer them. A fire says what became of it: an execution, or why there is none; it is looked up by execution too.

-- +goose Up
-- node: the trigger.schedule of the flow that owns it ('': somebody made it by itself). catch_up_max: how many missed instants catch_up = all makes up for.
ALTER TABLE schedules
    ADD COLUMN node         text NOT NULL DEFAULT '',
    ADD COLUMN catch_up_max int  NOT NULL DEFAULT 100 CHECK (catch_up_max BETWEEN 1 AND 1000);
CREATE UNIQUE INDEX schedules_node_key ON schedules (flow_id, node) WHERE node <> '';

ALTER TABLE fires
    ADD COLUMN reason text NOT NULL DEFAULT '',
    ADD COLUMN missed int  NOT NULL DEFAULT 0;
CREATE INDEX fires_at ON fires (at);
CREATE INDEX fires_started ON fires (schedule_id, due_at) WHERE execution_id IS NOT NULL; -- overlap: skipped fires may be many

-- The gateway fires instants of the past when somebody asks (backfill), those too that were skipped, missed or refused; it deletes none. The leader moves a schedule on and does nothing else to it.
GRANT INSERT, UPDATE (execution_id, term, outcome, reason, missed, at) ON fires TO flow_gateway;
REVOKE UPDATE ON schedules FROM flow_orchestrator;
GRANT UPDATE (next_due) ON schedules TO flow_orchestrator;

-- +goose Down
REVOKE UPDATE (next_due) ON schedules FROM flow_orchestrator;
GRANT UPDATE ON schedules TO flow_orchestrator;
REVOKE INSERT, UPDATE (execution_id, term, outcome, reason, missed, at) ON fires FROM flow_gateway;
DROP INDEX fires_started, fires_at;
ALTER TABLE fires DROP COLUMN reason, DROP COLUMN missed;
DROP INDEX schedules_node_key;
ALTER TABLE schedules DROP COLUMN node, DROP COLUMN catch_up_max;
