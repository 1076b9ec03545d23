-- What the hub says of an entry (`eff`, `state`) stands behind its payload, and a row whose length changes is written anew, up to 256 KiB of it.
-- Eight bytes are left in each row for `eff` and go when it comes, so that the row stays as long as it is and only the pages with the change
-- are written. Rows from before have none, and cost once what they did.
ALTER TABLE mobo_outbox ADD COLUMN eff_room BLOB;
