-- What may be done to a party's audio, how its digits travel, and what callers hear and have
-- recorded. Who was there before asked for nothing of this.
ALTER TABLE trunks ADD COLUMN transcode TEXT NOT NULL DEFAULT 'when_needed'
    CHECK (transcode IN ('off', 'when_needed'));
ALTER TABLE trunks ADD COLUMN dtmf TEXT NOT NULL DEFAULT 'rfc4733'
    CHECK (dtmf IN ('rfc4733', 'inband', 'info'));
ALTER TABLE members ADD COLUMN transcode TEXT NOT NULL DEFAULT 'when_needed'
    CHECK (transcode IN ('off', 'when_needed'));
ALTER TABLE members ADD COLUMN dtmf TEXT NOT NULL DEFAULT 'rfc4733'
    CHECK (dtmf IN ('rfc4733', 'inband', 'info'));
-- A file under [media] prompts_dir; NULL: what [media] says.
ALTER TABLE tenants ADD COLUMN hold_music TEXT;
ALTER TABLE dids ADD COLUMN record TEXT NOT NULL DEFAULT 'never'
    CHECK (record IN ('never', 'always'));

CREATE TABLE conferences (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    did TEXT NOT NULL UNIQUE,
    pin TEXT,
    announce INTEGER NOT NULL CHECK (announce IN (0, 1)),
    record TEXT NOT NULL CHECK (record IN ('never', 'always')),
    origin TEXT NOT NULL CHECK (origin IN ('site', 'operator')),
    UNIQUE (tenant_id, name)
) STRICT;
