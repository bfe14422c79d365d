-- Lines that a process has taken: until then no other one does the same work. None, or over, where nobody has.

ALTER TABLE outbox ADD COLUMN taken_until BIGINT;
ALTER TABLE trash ADD COLUMN taken_until BIGINT;
