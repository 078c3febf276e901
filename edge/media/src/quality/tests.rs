use super::*;

#[test]
fn ntp_time_counts_seconds_and_fractions() {
    assert_eq!(ntp_of(MonoTime(0)), 0);
    assert_eq!(ntp_of(MonoTime(3_500_000_000)), 3 << 32 | 1 << 31);
    let nearly = ntp_of(MonoTime(999_999_999));
    assert!(nearly < 1 << 32 && nearly > (1 << 32) - 10);
}

#[test]
fn span_in_units_is_a_time() {
    assert_eq!(micros_of(160, 8_000), 20_000);
    assert_eq!(micros_of(960, 48_000), 20_000);
    assert_eq!(micros_of(u64::from(u32::MAX), 1), u32::MAX);
}
