-- Calls to carriers: what is known of a trunk beside its sources, who may call out, and through
-- which trunks. The three columns are JSON objects that name what is not at its default; who was
-- there before only took calls, and nobody calls out unless a site file says so. Settings hold the
-- passwords that carriers' challenges need in clear; the store's file is readable by its owner.
ALTER TABLE trunks ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
ALTER TABLE tenants ADD COLUMN outbound TEXT NOT NULL DEFAULT '{}';
ALTER TABLE members ADD COLUMN outbound TEXT NOT NULL DEFAULT '{}';
ALTER TABLE dids ADD COLUMN channels_max INTEGER;

CREATE TABLE routes (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    -- '+' and digits, or what the tenant dials for help.
    prefix TEXT NOT NULL,
    -- Names, separated by one space, in the order in which they are tried.
    trunks TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('site', 'operator')),
    UNIQUE (tenant_id, prefix)
) STRICT;
