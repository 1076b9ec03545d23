-- How far any hub has said that it has a lane. A restored hub takes `acked` back, and not this: what was committed once was delivered, too, and the
-- row that has it may come back from whoever holds it. Of an earlier version's lanes it is known of what still counts as committed.
ALTER TABLE mobo_lane ADD COLUMN reached INTEGER NOT NULL DEFAULT 0;
UPDATE mobo_lane SET reached = acked;
