-- Members who listen until an operator lets them speak.
ALTER TABLE conferences ADD COLUMN join_muted INTEGER NOT NULL DEFAULT 0
    CHECK (join_muted IN (0, 1));
