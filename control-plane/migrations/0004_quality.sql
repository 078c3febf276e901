-- Why the node itself ended a call, and what each leg's media was like. Counts are packets, times
-- microseconds, mos_centi hundredths of a mean opinion score (100 to 450); 0 where unknown.
ALTER TABLE call_records ADD COLUMN end_cause TEXT;

ALTER TABLE call_records ADD COLUMN caller_lost_packets INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN caller_reordered_packets INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN caller_duplicate_packets INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN caller_jitter_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN caller_jitter_max_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN caller_rtt_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN caller_mos_centi INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN caller_remote_lost_packets INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN caller_remote_jitter_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN caller_srtp_failed_packets INTEGER NOT NULL DEFAULT 0;

ALTER TABLE call_records ADD COLUMN callee_lost_packets INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN callee_reordered_packets INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN callee_duplicate_packets INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN callee_jitter_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN callee_jitter_max_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN callee_rtt_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN callee_mos_centi INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN callee_remote_lost_packets INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN callee_remote_jitter_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE call_records ADD COLUMN callee_srtp_failed_packets INTEGER NOT NULL DEFAULT 0;
