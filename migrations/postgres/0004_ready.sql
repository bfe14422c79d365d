-- How long the oldest task has been queued, however many are. With millions of tasks it is built before the upgrade, without
-- stopping anybody: docs/scaling.md.

CREATE INDEX IF NOT EXISTS tasks_ready ON tasks (ready_at) WHERE state = 'queued';
