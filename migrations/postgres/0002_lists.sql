-- Lists that ask for few among many: what is open, what failed, one operation.

CREATE INDEX jobs_open ON jobs (user_id, id) WHERE ended_at IS NULL;
CREATE INDEX jobs_failed ON jobs (user_id, id) WHERE status = 'error';
CREATE INDEX tasks_unended ON tasks (user_id, id) WHERE ended_at IS NULL;
CREATE INDEX tasks_failed ON tasks (user_id, id) WHERE state = 'error';
CREATE INDEX tasks_operation ON tasks (user_id, operation, id);
