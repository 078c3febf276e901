use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::spool::Spool;
use super::*;
use crate::store::{self, RecordQuery, StoreHandle, StoreOptions};

/// An answered call that began at `start_unix_ms`.
pub(crate) fn record(call_id: &str, start_unix_ms: i64) -> CallRecord {
    CallRecord {
        call_id: call_id.to_owned(),
        start_unix_ms,
        answer_unix_ms: Some(start_unix_ms + 4_000),
        end_unix_ms: start_unix_ms + 64_000,
        direction: CallDirection::Inbound,
        trunk: Some("carrier-1".to_owned()),
        tenant: Some("acme".to_owned()),
        did: Some("+442071838750".to_owned()),
        caller: "+15550100200".to_owned(),
        callee: Some("101".to_owned()),
        result: CallResult::Answered,
        sip_status: Some(200),
        ended_by: EndedBySide::Caller,
        end_cause: Some(EndCause::MediaStopped),
        setup_ms: Some(4_000),
        duration_ms: 60_000,
        caller_codec: Some("PCMU".to_owned()),
        callee_codec: Some("PCMU".to_owned()),
        caller_media: LegMedia {
            rx_packets: 3_000,
            tx_packets: 2_998,
            quality: LegQuality {
                lost_packets: 1,
                reordered_packets: 2,
                duplicate_packets: 3,
                jitter_micros: 4,
                jitter_max_micros: 5,
                rtt_micros: 6,
                mos_centi: 441,
                remote_lost_packets: 8,
                remote_jitter_micros: 9,
                srtp_failed_packets: 10,
            },
        },
        callee_media: LegMedia::default(),
    }
}

#[test]
fn spooled_record_of_a_release_that_did_not_measure_is_still_read() {
    let mut json = serde_json::to_value(record("c-1", 7)).expect("plain data");
    let fields = json.as_object_mut().expect("an object");
    fields.remove("end_cause");
    for leg in ["caller_media", "callee_media"] {
        let media = fields.get_mut(leg).and_then(|media| media.as_object_mut());
        media.expect("an object").remove("quality");
    }
    let read: CallRecord = serde_json::from_value(json).expect("what is new has a default");
    assert_eq!(read.end_cause, None);
    assert_eq!(read.caller_media.quality, LegQuality::default());
    assert_eq!(read.caller_media.rx_packets, 3_000);
}

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("temporary directory"),
        }
    }

    fn spool_path(&self) -> PathBuf {
        self.dir.path().join("cdr.spool")
    }

    fn spool(&self) -> (Spool, u64) {
        Spool::open(&self.spool_path(), 1 << 20).expect("opened")
    }

    fn store_path(&self) -> PathBuf {
        self.dir.path().join("trunkline.db")
    }

    fn store(&self) -> StoreHandle {
        let mut options = StoreOptions::new(self.store_path(), "trunkline");
        options.busy_timeout = Duration::from_millis(20);
        store::open(options).expect("opened").0
    }
}

/// A line of the spool.
fn line(call_id: &str, start_unix_ms: i64) -> DetailRecord {
    record(call_id, start_unix_ms).into()
}

/// A recording of that call, a second long.
pub(crate) fn recording(recording_id: &str, call_id: &str, ended_unix_ms: i64) -> RecordingRecord {
    RecordingRecord {
        recording_id: recording_id.to_owned(),
        call_id: Some(call_id.to_owned()),
        tenant: Some("acme".to_owned()),
        conference: None,
        ended_unix_ms,
        ending: RecordingEnding {
            path: format!("/recordings/{recording_id}.wav"),
            cause: RecordingCause::Stopped,
            duration_ms: 1_000,
            bytes: 32_044,
            lost_packets: 0,
            sha256: Some("00ff".repeat(16)),
        },
    }
}

fn stored_ids(store: &StoreHandle) -> Vec<String> {
    let query = RecordQuery {
        limit: 1_000_000,
        since_unix_ms: None,
    };
    let records = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime")
        .block_on(store.records(query))
        .expect("listed");
    let mut ids: Vec<_> = records
        .into_iter()
        .map(|stored| stored.record.call_id)
        .collect();
    ids.sort();
    ids
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn submitted_records_reach_the_store_and_leave_the_spool() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (writer, thread) = spawn(&fixture.spool_path(), store.clone()).expect("started");
    for i in 0..1_000 {
        assert!(writer.submit(record(&format!("{i:04}"), i)));
    }
    let status = writer.status();
    drop(writer);
    thread.join();
    assert_eq!(stored_ids(&store).len(), 1_000);
    assert_eq!(
        std::fs::metadata(fixture.spool_path())
            .expect("there")
            .len(),
        0
    );
    assert_eq!(
        (status.submitted_total(), status.stored_total()),
        (1_000, 1_000)
    );
    assert_eq!((status.lost_total(), status.problem()), (0, None));
}

#[test]
fn what_a_dead_process_left_is_delivered_once_and_its_torn_line_cut() {
    let fixture = Fixture::new();
    {
        let (mut spool, torn) = fixture.spool();
        assert_eq!(torn, 0);
        spool
            .append([line("a", 1), line("b", 2)].iter())
            .expect("appended");
    }
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(fixture.spool_path())
        .expect("opened");
    file.write_all(b"{\"call_id\":\"torn\",\"start")
        .expect("written");
    // The store got the first one before the process died.
    let store = fixture.store();
    let mut pending = store.try_add_records(vec![line("a", 1)]).expect("taken");
    wait_until("the first delivery", || pending.poll().is_some());

    let (writer, thread) = spawn(&fixture.spool_path(), store.clone()).expect("started");
    let status = writer.status();
    drop(writer);
    thread.join();
    assert_eq!(stored_ids(&store), ["a", "b"]);
    assert_eq!(status.stored_total(), 1);
}

#[test]
fn torn_line_does_not_run_into_the_next_record() {
    let fixture = Fixture::new();
    std::fs::write(fixture.spool_path(), b"{\"call_id\":\"torn").expect("written");
    let (mut spool, torn) = fixture.spool();
    assert_eq!(torn, 16);
    spool.append([line("a", 1)].iter()).expect("appended");
    assert_eq!(spool.next_batch(10).expect("read").records, [line("a", 1)]);
}

#[test]
fn line_that_holds_no_record_is_moved_aside_and_the_others_are_delivered() {
    let fixture = Fixture::new();
    {
        let (mut spool, _) = fixture.spool();
        spool.append([line("a", 1)].iter()).expect("appended");
    }
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(fixture.spool_path())
        .expect("opened");
    file.write_all(b"\0\0\xff not a record\n").expect("written");
    let (mut spool, torn) = fixture.spool();
    assert_eq!(torn, 0);
    spool.append([line("b", 2)].iter()).expect("appended");
    let batch = spool.next_batch(10).expect("read");
    assert_eq!(batch.records, [line("a", 1), line("b", 2)]);
    assert_eq!(batch.rejected_count, 1);
    let aside = std::fs::read(fixture.dir.path().join("cdr.rejected")).expect("there");
    assert_eq!(aside, b"\0\0\xff not a record\n");
}

#[test]
fn batch_is_given_again_until_it_is_delivered() {
    let fixture = Fixture::new();
    let (mut spool, _) = fixture.spool();
    spool
        .append([line("a", 1), line("b", 2), line("c", 3)].iter())
        .expect("appended");
    let first = spool.next_batch(2).expect("read");
    assert_eq!(spool.next_batch(2).expect("read").records, first.records);
    spool.mark_delivered(first.end).expect("marked");
    let second = spool.next_batch(2).expect("read");
    assert_eq!(second.records, [line("c", 3)]);
    assert!(spool.undelivered_len() > 0);
    spool.mark_delivered(second.end).expect("marked");
    assert_eq!(spool.undelivered_len(), 0);
}

#[test]
fn one_spool_has_one_process() {
    let fixture = Fixture::new();
    let _first = fixture.spool();
    let second = Spool::open(&fixture.spool_path(), 1 << 20).expect_err("locked");
    assert!(
        second.to_string().contains("another trunkline-control"),
        "{second}"
    );
}

#[test]
fn full_spool_refuses_whole_appends_and_keeps_what_it_has() {
    let fixture = Fixture::new();
    let (mut spool, _) = Spool::open(&fixture.spool_path(), 1_000).expect("opened");
    spool.append([line("a", 1)].iter()).expect("fits");
    let refused = spool.append([line("b", 2), line("c", 3)].iter());
    assert_eq!(
        refused.map_err(|e| e.kind()),
        Err(std::io::ErrorKind::StorageFull)
    );
    assert_eq!(spool.next_batch(10).expect("read").records, [line("a", 1)]);
}

#[test]
fn records_wait_in_the_spool_while_the_store_is_locked() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let lock = crate::store::tests::Lock::take(&fixture.store_path());
    let (writer, thread) = spawn(&fixture.spool_path(), store.clone()).expect("started");
    let status = writer.status();
    assert!(writer.submit(record("a", 1)));
    wait_until("a failed delivery", || status.store_fails());
    assert!(status.spool_bytes() > 0);
    assert_eq!(status.problem(), None, "the spool holds it");
    lock.release();
    wait_until("the delivery", || status.stored_total() == 1);
    wait_until("the end of the failure", || !status.store_fails());
    drop(writer);
    thread.join();
    assert_eq!(stored_ids(&store), ["a"]);
}

#[test]
fn records_go_to_the_store_from_memory_while_the_spool_cannot_be_written() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (spool, _) = Spool::open(&fixture.spool_path(), 0).expect("opened");
    let lock = crate::store::tests::Lock::take(&fixture.store_path());
    let (writer, thread) = writer::spawn_with(spool, store.clone()).expect("started");
    let status = writer.status();
    for i in 0..10 {
        assert!(writer.submit(record(&i.to_string(), i)));
    }
    wait_until("a problem to be shown", || {
        status
            .problem()
            .is_some_and(|problem| problem.contains("10 records wait in memory"))
    });
    lock.release();
    wait_until("the delivery", || status.stored_total() == 10);
    wait_until("the problem to pass", || status.problem().is_none());
    drop(writer);
    thread.join();
    assert_eq!(stored_ids(&store).len(), 10);
}

#[test]
fn names_are_read_back_as_written() {
    for result in CallResult::ALL {
        assert_eq!(result.as_str().parse(), Ok(*result));
        let json = serde_json::to_string(result).expect("serialized");
        assert_eq!(json, format!("\"{result}\""));
    }
    assert!("lost".parse::<CallResult>().is_err());
}
