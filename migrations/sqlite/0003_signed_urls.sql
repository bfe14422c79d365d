-- Signed URLs: whoever holds the secret of one can have jobs run by a plain GET.

CREATE TABLE signed_urls (
    id         BLOB PRIMARY KEY,
    user_id    BIGINT NOT NULL REFERENCES users (id),
    name       TEXT NOT NULL,
    secret     BLOB NOT NULL, -- sealed
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE UNIQUE INDEX signed_urls_name ON signed_urls (name) WHERE revoked_at IS NULL;

-- The last job that was made for a cache key.
CREATE TABLE signed_results (
    signed_url_id BLOB NOT NULL REFERENCES signed_urls (id),
    cache_key     TEXT NOT NULL,
    job_id        BLOB NOT NULL,
    created_at    BIGINT NOT NULL,
    PRIMARY KEY (signed_url_id, cache_key)
);
CREATE INDEX signed_results_created ON signed_results (created_at);
