-- Our media address towards a trunk or a member's phone, by its name in [edge] media_addresses;
-- NULL: the first of the family that fits.
ALTER TABLE trunks ADD COLUMN media TEXT;
ALTER TABLE members ADD COLUMN media TEXT;
