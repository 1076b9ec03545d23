-- What was dropped of each stream for want of room, before the hub had it; the hub is told in entries of their own.
CREATE TABLE mobo_loss(
  collection INTEGER PRIMARY KEY,
  samples INTEGER NOT NULL,            -- thinned ones are not in it
  entries INTEGER NOT NULL,
  reason INTEGER NOT NULL,             -- of the last time: 1 drop_oldest, 2 thin
  last_us INTEGER NOT NULL             -- when, by this device's clock
) STRICT;
