-- What people make: projects, users, tokens, flows, schedules, credentials, hooks, settings, audit. Small tables, written by hand of man.
-- Values of users are bytea with a codec, never jsonb: any JSON survives, numbers stay exact. Labels are ours to search, so they are jsonb.

-- +goose Up
CREATE TABLE projects (
    id         uuid        PRIMARY KEY,
    name       text        NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO projects (id, name) VALUES ('00000000-0000-7000-8000-000000000001', 'default');

-- What all services must agree on: one row.
CREATE TABLE platform (
    one           boolean PRIMARY KEY DEFAULT true CHECK (one),
    report_shards int     NOT NULL DEFAULT 1 CHECK (report_shards BETWEEN 1 AND 256)
);
INSERT INTO platform DEFAULT VALUES;

CREATE TABLE users (
    id            uuid        PRIMARY KEY,
    email         text        NOT NULL,
    role          text        NOT NULL CHECK (role IN ('viewer', 'editor', 'operator', 'admin')),
    password_hash text        NOT NULL,
    disabled      boolean     NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE TABLE tokens (
    id           uuid        PRIMARY KEY,
    project_id   uuid        NOT NULL DEFAULT '00000000-0000-7000-8000-000000000001' REFERENCES projects,
    user_id      uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    name         text        NOT NULL,
    role         text        NOT NULL CHECK (role IN ('viewer', 'editor', 'operator', 'admin')),
    hash         bytea       NOT NULL,
    rate_limit   int         NOT NULL DEFAULT 0, -- a minute; 0: the default, -1: none
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    last_used_at timestamptz,
    CONSTRAINT tokens_hash_key UNIQUE (hash),
    CONSTRAINT tokens_name_key UNIQUE (project_id, user_id, name)
);

CREATE TABLE refresh_tokens (
    id         uuid        PRIMARY KEY,
    user_id    uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    hash       bytea       NOT NULL,
    family     uuid        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    revoked_at timestamptz,
    CONSTRAINT refresh_tokens_hash_key UNIQUE (hash)
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);

-- A deleted flow keeps its row and its versions as long as executions of it may be read; its name is free again.
CREATE TABLE flows (
    id            uuid        PRIMARY KEY,
    project_id    uuid        NOT NULL DEFAULT '00000000-0000-7000-8000-000000000001' REFERENCES projects,
    name          text        NOT NULL,
    description   text        NOT NULL DEFAULT '',
    labels        jsonb       NOT NULL DEFAULT '{}',
    published     int         NOT NULL DEFAULT 0, -- version that triggers and starts use; 0: none
    latest        int         NOT NULL DEFAULT 0,
    paused_reason text        NOT NULL DEFAULT '',
    revision      int         NOT NULL DEFAULT 1, -- raised by every change: the ETag
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    deleted_at    timestamptz
);
CREATE UNIQUE INDEX flows_name_key ON flows (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX flows_labels ON flows USING gin (labels jsonb_path_ops);

CREATE TABLE flow_versions (
    flow_id    uuid        NOT NULL REFERENCES flows ON DELETE CASCADE,
    version    int         NOT NULL CHECK (version > 0),
    codec      text        NOT NULL DEFAULT '',
    document   bytea       NOT NULL,
    retention  interval, -- settings.retention of the document; null: the platform's
    created_by text        NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (flow_id, version)
);
CREATE INDEX flow_versions_retention ON flow_versions (flow_id, version) WHERE retention IS NOT NULL; -- few: the leader reads them every minute

CREATE TABLE schedules (
    id          uuid        PRIMARY KEY,
    project_id  uuid        NOT NULL DEFAULT '00000000-0000-7000-8000-000000000001' REFERENCES projects,
    flow_id     uuid        NOT NULL REFERENCES flows ON DELETE CASCADE,
    name        text        NOT NULL,
    cron        text        NOT NULL,
    time_zone   text        NOT NULL DEFAULT 'UTC', -- IANA name
    input_codec text        NOT NULL DEFAULT '',
    input       bytea,
    catch_up    text        NOT NULL DEFAULT 'skip' CHECK (catch_up IN ('skip', 'one', 'all')),
    overlap     text        NOT NULL DEFAULT 'allow' CHECK (overlap IN ('allow', 'skip', 'cancel')),
    start_at    timestamptz,
    end_at      timestamptz,
    paused      boolean     NOT NULL DEFAULT false,
    next_due    timestamptz, -- the database's clock; only moves on
    revision    int         NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT schedules_name_key UNIQUE (project_id, name)
);
CREATE INDEX schedules_due ON schedules (next_due) WHERE NOT paused;
CREATE INDEX schedules_flow ON schedules (flow_id);

-- One row per (schedule, instant), written before the execution is made: the second leader that tries finds it there.
CREATE TABLE fires (
    schedule_id  uuid        NOT NULL,
    due_at       timestamptz NOT NULL,
    execution_id uuid,
    term         bigint      NOT NULL,
    outcome      text        NOT NULL DEFAULT '',
    at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (schedule_id, due_at)
);

CREATE TABLE credentials (
    id           uuid        PRIMARY KEY,
    project_id   uuid        NOT NULL DEFAULT '00000000-0000-7000-8000-000000000001' REFERENCES projects,
    name         text        NOT NULL,
    type         text        NOT NULL,
    public       bytea, -- JSON: what may be shown
    secret       bytea       NOT NULL,
    secret_codec text        NOT NULL, -- how secret is encrypted
    key_id       text        NOT NULL, -- with which key
    revision     int         NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT credentials_name_key UNIQUE (project_id, name)
);

CREATE TABLE hooks (
    id         uuid        PRIMARY KEY,
    project_id uuid        NOT NULL DEFAULT '00000000-0000-7000-8000-000000000001' REFERENCES projects,
    flow_id    uuid        NOT NULL REFERENCES flows ON DELETE CASCADE,
    node       text        NOT NULL,
    path       text        NOT NULL,
    method     text        NOT NULL,
    respond    text        NOT NULL DEFAULT 'immediately' CHECK (respond IN ('immediately', 'flow')),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT hooks_path_key UNIQUE (project_id, path, method)
);
CREATE INDEX hooks_flow ON hooks (flow_id);

CREATE TABLE settings (
    name       text        PRIMARY KEY,
    value      bytea       NOT NULL, -- JSON
    revision   int         NOT NULL DEFAULT 1,
    updated_by text        NOT NULL DEFAULT '',
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE audit (
    id           uuid        PRIMARY KEY,
    project_id   uuid        NOT NULL DEFAULT '00000000-0000-7000-8000-000000000001' REFERENCES projects,
    at           timestamptz NOT NULL DEFAULT now(),
    actor        text        NOT NULL,
    action       text        NOT NULL,
    object       text        NOT NULL,
    object_id    text        NOT NULL DEFAULT '',
    detail_codec text        NOT NULL DEFAULT '',
    detail       bytea
);
CREATE INDEX audit_object ON audit (object, object_id, id);

-- +goose Down
DROP TABLE audit, settings, hooks, credentials, fires, schedules, flow_versions, flows, refresh_tokens, tokens, users, platform, projects;
