-- Webhooks, what they were told, and how that went.

-- Nobody read the outbox before; what it tells of is long over.
DELETE FROM outbox;
CREATE INDEX outbox_job ON outbox (job_id);

CREATE TABLE webhooks (
    id         INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice: clients delete by it
    user_id    BIGINT NOT NULL REFERENCES users (id),
    url        BLOB NOT NULL, -- sealed
    events     TEXT NOT NULL, -- separated by spaces
    secret     BLOB NOT NULL, -- sealed
    disabled   BOOLEAN NOT NULL,
    failing    BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX webhooks_user ON webhooks (user_id, id);

-- What signs the webhooks that jobs bring with them.
CREATE TABLE webhook_secrets (
    user_id    BIGINT PRIMARY KEY REFERENCES users (id),
    secret     BLOB NOT NULL, -- sealed
    created_at BIGINT NOT NULL
);

-- One event on its way to one receiver. Outlives its job.
CREATE TABLE deliveries (
    id         BLOB PRIMARY KEY,
    user_id    BIGINT NOT NULL REFERENCES users (id),
    webhook_id BIGINT REFERENCES webhooks (id) ON DELETE CASCADE, -- none for the job's own address
    job_id     BLOB NOT NULL,
    kind       TEXT NOT NULL,
    url        BLOB, -- sealed; the job's own address
    receiver   BIGINT NOT NULL, -- the webhook, or a negative number for a host; one that is slow delays only itself
    body       BLOB NOT NULL, -- sealed
    state      TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    sending    BOOLEAN NOT NULL, -- a process is at it, until due_at
    attempts   BIGINT NOT NULL,
    tries      BIGINT NOT NULL, -- attempts since it was made or asked for again
    due_at     BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at   BIGINT,
    CHECK ((webhook_id IS NULL) = (url IS NOT NULL)),
    CHECK ((state = 'pending') = (ended_at IS NULL))
);
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE state = 'pending';
CREATE INDEX deliveries_receiver ON deliveries (user_id, receiver, due_at) WHERE state = 'pending';
CREATE INDEX deliveries_webhook ON deliveries (webhook_id, id) WHERE webhook_id IS NOT NULL;
CREATE INDEX deliveries_job ON deliveries (job_id, id);
CREATE INDEX deliveries_ended ON deliveries (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE delivery_attempts (
    delivery_id BLOB NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    number      BIGINT NOT NULL,
    at          BIGINT NOT NULL,
    status      BIGINT, -- none: no answer came
    error       TEXT,
    duration_ms BIGINT NOT NULL,
    PRIMARY KEY (delivery_id, number)
);
