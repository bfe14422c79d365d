-- The first schema. Moments and counts are BIGINT (moments in microseconds since 1970), ids 16 bytes of UUID version 7,
-- JSON is TEXT and never queried. PostgreSQL gets the same tables and columns.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
-- The turn that was last given away by a claim: newcomers are queued there, not behind everybody's backlog.
INSERT INTO meta (name, value) VALUES ('virtual_time', 0);

CREATE TABLE users (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    vt         BIGINT NOT NULL, -- the last turn that one of this user's tasks was given
    created_at BIGINT NOT NULL
);

CREATE TABLE keys (
    id         BLOB PRIMARY KEY,
    user_id    BIGINT NOT NULL REFERENCES users (id),
    name       TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE,
    scopes     TEXT NOT NULL, -- separated by spaces
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);
CREATE UNIQUE INDEX keys_name ON keys (name) WHERE revoked_at IS NULL;

CREATE TABLE jobs (
    id           BLOB PRIMARY KEY,
    user_id      BIGINT NOT NULL REFERENCES users (id),
    key_id       BLOB, -- none: made by the server's own command line
    tag          TEXT,
    webhook_url  TEXT,
    status       TEXT NOT NULL CHECK (status IN ('waiting', 'processing', 'finished', 'error')),
    open_tasks   BIGINT NOT NULL CHECK (open_tasks >= 0),
    failed_tasks BIGINT NOT NULL, -- errors that count: not those that are ignored or follow from ignored ones
    created_at   BIGINT NOT NULL,
    started_at   BIGINT,
    ended_at     BIGINT,
    CHECK ((status IN ('finished', 'error')) = (ended_at IS NOT NULL))
);
CREATE INDEX jobs_user ON jobs (user_id, id);
CREATE INDEX jobs_tag ON jobs (user_id, tag, id) WHERE tag IS NOT NULL;
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE tasks (
    id                BLOB PRIMARY KEY,
    job_id            BLOB REFERENCES jobs (id) ON DELETE CASCADE,
    user_id           BIGINT NOT NULL REFERENCES users (id),
    position          BIGINT NOT NULL, -- in the job, from 0
    name              TEXT,
    operation         TEXT NOT NULL,
    state             TEXT NOT NULL
        CHECK (state IN ('blocked', 'uploading', 'queued', 'delayed', 'running', 'finished', 'error')),
    ignore_error      BOOLEAN NOT NULL,
    forgiven          BOOLEAN NOT NULL, -- its error does not count: it is ignored, or follows from ignored ones only
    priority          BIGINT NOT NULL,
    vt                BIGINT NOT NULL, -- its turn, among tasks of the same priority
    open_inputs       BIGINT NOT NULL CHECK (open_inputs >= 0),
    usable_inputs     BIGINT NOT NULL, -- inputs that finished
    attempt           BIGINT NOT NULL,
    lease             BIGINT,
    session_id        BLOB,
    percent           BIGINT NOT NULL,
    code              TEXT,
    message           TEXT,
    warnings          TEXT, -- JSON list, none if empty
    host_name         TEXT,
    retry_of          BLOB,
    created_at        BIGINT NOT NULL,
    ready_at          BIGINT, -- when it was last queued
    not_before        BIGINT, -- when a delayed task is due
    started_at        BIGINT,
    ended_at          BIGINT,
    upload_expires_at BIGINT,
    CHECK ((state = 'running') = (lease IS NOT NULL)),
    CHECK ((state = 'running') = (session_id IS NOT NULL)),
    CHECK ((state = 'delayed') = (not_before IS NOT NULL)),
    CHECK ((state IN ('finished', 'error')) = (ended_at IS NOT NULL))
);
CREATE INDEX tasks_open ON tasks (state, priority DESC, vt, id, user_id) WHERE ended_at IS NULL;
CREATE INDEX tasks_queued ON tasks (user_id, priority DESC, vt, id) WHERE state = 'queued';
CREATE INDEX tasks_running ON tasks (user_id, session_id) WHERE state = 'running';
CREATE INDEX tasks_delayed ON tasks (not_before) WHERE state = 'delayed';
CREATE INDEX tasks_uploading ON tasks (upload_expires_at) WHERE state = 'uploading';
CREATE INDEX tasks_user ON tasks (user_id, id);
CREATE INDEX tasks_job ON tasks (job_id, position) WHERE job_id IS NOT NULL;
CREATE INDEX tasks_retry_of ON tasks (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX tasks_ended ON tasks (ended_at) WHERE job_id IS NULL AND ended_at IS NOT NULL;

CREATE TABLE task_docs (
    task_id BLOB PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    payload BLOB NOT NULL -- sealed
);

-- What a task takes files from. The input may be gone: it can be deleted while others still name it.
CREATE TABLE dependencies (
    task_id    BLOB NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    position   BIGINT NOT NULL,
    depends_on BLOB NOT NULL,
    PRIMARY KEY (task_id, position)
);
CREATE INDEX dependencies_on ON dependencies (depends_on, task_id);

CREATE TABLE files (
    task_id             BLOB NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    position            BIGINT NOT NULL,
    name                TEXT NOT NULL,
    size                BIGINT NOT NULL,
    md5                 BLOB NOT NULL,
    sha256              BLOB NOT NULL,
    crc32c              BIGINT NOT NULL,
    content_type        TEXT NOT NULL,
    blob                TEXT,
    download_inline     BOOLEAN,
    download_expires_at BIGINT,
    receipt             TEXT, -- JSON
    PRIMARY KEY (task_id, position)
);

CREATE TABLE sessions (
    id         BLOB PRIMARY KEY,
    host_name  TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    last_seen  BIGINT NOT NULL
);

-- Uploads that are open at destinations. Lines outlive their task.
CREATE TABLE ledger (
    task_id     BLOB NOT NULL,
    target      TEXT NOT NULL,
    handle      TEXT NOT NULL,
    sha256      TEXT NOT NULL,
    part_bytes  BIGINT NOT NULL,
    operation   TEXT NOT NULL,
    payload     BLOB NOT NULL, -- sealed
    opened_at   BIGINT NOT NULL,
    due_at      BIGINT, -- when to abort it; none while its task may go on with it
    abort_tries BIGINT NOT NULL,
    PRIMARY KEY (task_id, target)
);
CREATE INDEX ledger_due ON ledger (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE ledger_parts (
    task_id  BLOB NOT NULL,
    target   TEXT NOT NULL,
    number   BIGINT NOT NULL,
    size     BIGINT NOT NULL,
    etag     TEXT NOT NULL,
    checksum TEXT,
    PRIMARY KEY (task_id, target, number),
    FOREIGN KEY (task_id, target) REFERENCES ledger (task_id, target) ON DELETE CASCADE
);

-- What webhooks have to tell, written by the transition that made it true.
CREATE TABLE outbox (
    id         BLOB PRIMARY KEY,
    user_id    BIGINT NOT NULL,
    job_id     BLOB NOT NULL,
    kind       TEXT NOT NULL, -- job.created, job.finished, job.failed
    created_at BIGINT NOT NULL
);
CREATE INDEX outbox_created ON outbox (created_at);

CREATE TABLE idempotency (
    user_id      BIGINT NOT NULL,
    key          TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    answer       BLOB NOT NULL, -- sealed
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_created ON idempotency (created_at);

-- Tasks whose rows are gone and whose files are still to be removed.
CREATE TABLE trash (
    task_id    BLOB PRIMARY KEY,
    created_at BIGINT NOT NULL
);
CREATE INDEX trash_created ON trash (created_at);
