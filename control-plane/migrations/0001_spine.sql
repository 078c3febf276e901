-- Who exists, who answers which number, and what was called.
--
-- origin: who made the row. 'site' rows belong to the site file and go when it no longer states
-- them; 'operator' rows go only with --prune.

CREATE TABLE tenants (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    origin TEXT NOT NULL CHECK (origin IN ('site', 'operator'))
) STRICT;

CREATE TABLE trunks (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL UNIQUE,
    -- Networks in CIDR form, separated by one space, in the order of the site file.
    sources TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('site', 'operator'))
) STRICT;

CREATE TABLE members (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    extension TEXT NOT NULL,
    name TEXT NOT NULL,
    sip_user TEXT NOT NULL UNIQUE,
    -- The realm that the two HA1 values (RFC 7616 section 3.4.2, lower-case hex) were made with.
    realm TEXT NOT NULL,
    ha1_md5 TEXT NOT NULL,
    ha1_sha256 TEXT NOT NULL,
    forward_number TEXT,
    availability TEXT NOT NULL CHECK (availability IN ('online', 'busy', 'offline')),
    -- A member's own choice outlives every later apply.
    availability_set_by TEXT NOT NULL CHECK (availability_set_by IN ('site', 'member')),
    origin TEXT NOT NULL CHECK (origin IN ('site', 'operator')),
    UNIQUE (tenant_id, extension)
) STRICT;

CREATE TABLE dids (
    id INTEGER PRIMARY KEY,
    number TEXT NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    member_id INTEGER NOT NULL REFERENCES members (id),
    origin TEXT NOT NULL CHECK (origin IN ('site', 'operator'))
) STRICT;

CREATE INDEX dids_by_member ON dids (member_id);

-- Call records name people and trunks by text: history outlives what it speaks of.
CREATE TABLE call_records (
    call_id TEXT PRIMARY KEY,
    start_unix_ms INTEGER NOT NULL,
    answer_unix_ms INTEGER,
    end_unix_ms INTEGER NOT NULL,
    direction TEXT NOT NULL,
    trunk TEXT,
    tenant TEXT,
    did TEXT,
    caller TEXT NOT NULL,
    callee TEXT,
    result TEXT NOT NULL,
    sip_status INTEGER,
    ended_by TEXT NOT NULL,
    setup_ms INTEGER,
    duration_ms INTEGER NOT NULL,
    caller_codec TEXT,
    callee_codec TEXT,
    caller_rx_packets INTEGER NOT NULL,
    caller_tx_packets INTEGER NOT NULL,
    callee_rx_packets INTEGER NOT NULL,
    callee_tx_packets INTEGER NOT NULL
) STRICT;

CREATE INDEX call_records_by_start ON call_records (start_unix_ms);
