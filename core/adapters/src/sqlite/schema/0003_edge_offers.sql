-- Buckets that are to be offered to a hub on a new timeline before they are pulled, swept or purged (R18).
CREATE TABLE mobo_offer(
  bucket INTEGER PRIMARY KEY,
  timeline BLOB NOT NULL CHECK (length(timeline) = 16),  -- that its rows were delivered on
  above INTEGER NOT NULL,              -- positions up to here are the hub's, too, or were offered already
  revoked INTEGER NOT NULL DEFAULT 0   -- 1: it may not be read any more, and goes once it was offered
) STRICT;
