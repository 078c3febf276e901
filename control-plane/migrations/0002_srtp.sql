-- Whether a party's media is protected with SRTP. Who was there before asked for plain RTP.
ALTER TABLE trunks ADD COLUMN srtp TEXT NOT NULL DEFAULT 'off'
    CHECK (srtp IN ('off', 'preferred', 'required'));
ALTER TABLE members ADD COLUMN srtp TEXT NOT NULL DEFAULT 'off'
    CHECK (srtp IN ('off', 'preferred', 'required'));
