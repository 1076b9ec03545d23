-- What was refused can be tried again or let go, and what becomes of it is on record.

ALTER TABLE mobo_inbox ADD COLUMN status INTEGER NOT NULL DEFAULT 0;  -- 0 open, 1 authored again, 2 dropped by somebody here
ALTER TABLE mobo_inbox ADD COLUMN settled_us INTEGER;                 -- when that was
ALTER TABLE mobo_inbox ADD COLUMN edits TEXT;                         -- JSON: what the entry did to each record; NULL for samples
ALTER TABLE mobo_inbox ADD COLUMN origin BLOB;                        -- CBOR [incarnation, lane, seq, eid] of its first sealing
ALTER TABLE mobo_inbox ADD COLUMN blocked_by INTEGER;                 -- the refused entry that it built on
ALTER TABLE mobo_inbox ADD COLUMN next_incarnation INTEGER;           -- the entry that it was authored again as
ALTER TABLE mobo_inbox ADD COLUMN next_lane INTEGER;
ALTER TABLE mobo_inbox ADD COLUMN next_seq INTEGER;
