-- Networks that a trunk's media may come from beside the address in its SDP, as in sources; empty
-- when it sends from where it listens.
ALTER TABLE trunks ADD COLUMN media_from TEXT NOT NULL DEFAULT '';
