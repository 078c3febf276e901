-- What callers hear before the answer, where calls go when a phone cannot take them, and groups of
-- members that ring together or in turn.
ALTER TABLE tenants ADD COLUMN early_media TEXT NOT NULL DEFAULT 'pass'
    CHECK (early_media IN ('pass', 'ringback', 'off'));
-- A file under [media] prompts_dir, or a tone; NULL: the tone of the United Kingdom.
ALTER TABLE tenants ADD COLUMN ringback TEXT;
-- NULL: as the tenant says.
ALTER TABLE dids ADD COLUMN early_media TEXT
    CHECK (early_media IN ('pass', 'ringback', 'off'));

-- An extension or an E.164 number each; NULL: nowhere.
ALTER TABLE members ADD COLUMN forward_always TEXT;
ALTER TABLE members ADD COLUMN forward_busy TEXT;
ALTER TABLE members ADD COLUMN forward_no_answer TEXT;
ALTER TABLE members ADD COLUMN forward_offline TEXT;

-- What a member has chosen in place of that. It outlives every later apply.
CREATE TABLE member_forwards (
    member_id INTEGER NOT NULL REFERENCES members (id) ON DELETE CASCADE,
    event TEXT NOT NULL CHECK (event IN ('always', 'busy', 'no_answer', 'offline')),
    -- NULL: nowhere, whatever the site file says.
    target TEXT,
    PRIMARY KEY (member_id, event)
) STRICT;

CREATE TABLE ring_groups (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    extension TEXT,
    -- E.164 numbers, separated by one space.
    dids TEXT NOT NULL,
    -- Extensions, separated by one space, in the order in which they are rung.
    members TEXT NOT NULL,
    strategy TEXT NOT NULL CHECK (strategy IN ('simultaneous', 'sequential', 'round_robin')),
    ring_secs INTEGER NOT NULL CHECK (ring_secs BETWEEN 1 AND 600),
    skip_busy INTEGER NOT NULL CHECK (skip_busy IN (0, 1)),
    origin TEXT NOT NULL CHECK (origin IN ('site', 'operator')),
    UNIQUE (tenant_id, name),
    UNIQUE (tenant_id, extension)
) STRICT;
