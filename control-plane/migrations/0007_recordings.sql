-- What became of recordings. A row of its own each: a call may have several, a conference has some
-- without a call, and a file may be complete after its call's record is written.
CREATE TABLE recordings (
    recording_id TEXT PRIMARY KEY,
    call_id TEXT,
    tenant TEXT,
    conference TEXT,
    path TEXT NOT NULL,
    cause TEXT NOT NULL,
    ended_unix_ms INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    lost_packets INTEGER NOT NULL,
    sha256 TEXT
) STRICT;
CREATE INDEX recordings_of_call ON recordings (call_id);
CREATE INDEX recordings_by_end ON recordings (ended_unix_ms);
