-- How long the oldest task has been queued, however many are.

CREATE INDEX tasks_ready ON tasks (ready_at) WHERE state = 'queued';
