-- HA1 under SHA-512/256 (RFC 8760); empty until the password is stored again.
ALTER TABLE members ADD COLUMN ha1_sha512_256 TEXT NOT NULL DEFAULT '';
