//! What became of recordings.

use std::collections::HashMap;

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::connection::translate;
use super::records::{RecordQuery, column, named, to_i64, to_u64};
use super::{StoreError, records};
use crate::cdr::{RecordingEnding, RecordingRecord, StoredCall};

/// Adds one, and says whether it was new.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    recording: &RecordingRecord,
) -> Result<u64, StoreError> {
    let ending = &recording.ending;
    let done = sqlx::query(
        "INSERT INTO recordings (recording_id, call_id, tenant, conference, path, cause, \
         ended_unix_ms, duration_ms, bytes, lost_packets, sha256) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (recording_id) DO NOTHING",
    )
    .bind(&recording.recording_id)
    .bind(&recording.call_id)
    .bind(&recording.tenant)
    .bind(&recording.conference)
    .bind(&ending.path)
    .bind(ending.cause.as_str())
    .bind(recording.ended_unix_ms)
    .bind(to_i64(ending.duration_ms))
    .bind(to_i64(ending.bytes))
    .bind(to_i64(ending.lost_packets))
    .bind(&ending.sha256)
    .execute(connection)
    .await
    .map_err(translate)?;
    Ok(done.rows_affected())
}

/// The newest first.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    query: RecordQuery,
) -> Result<Vec<RecordingRecord>, StoreError> {
    sqlx::query(
        "SELECT * FROM recordings WHERE ended_unix_ms >= ? \
         ORDER BY ended_unix_ms DESC, recording_id LIMIT ?",
    )
    .bind(query.since_unix_ms.unwrap_or(i64::MIN))
    .bind(query.limit)
    .fetch_all(connection)
    .await
    .map_err(translate)?
    .iter()
    .map(recording)
    .collect()
}

/// Call records, the newest first, each with its recordings.
pub(super) async fn calls(
    connection: &mut SqliteConnection,
    query: RecordQuery,
) -> Result<Vec<StoredCall>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM recordings WHERE call_id IN (SELECT call_id FROM call_records \
         WHERE start_unix_ms >= ? ORDER BY start_unix_ms DESC, call_id LIMIT ?) \
         ORDER BY ended_unix_ms, recording_id",
    )
    .bind(query.since_unix_ms.unwrap_or(i64::MIN))
    .bind(query.limit)
    .fetch_all(&mut *connection)
    .await
    .map_err(translate)?;
    let mut recordings: HashMap<String, Vec<RecordingRecord>> = HashMap::new();
    for row in &rows {
        let of: String = column(row, "call_id")?;
        recordings.entry(of).or_default().push(recording(row)?);
    }
    let calls = records::list(connection, query).await?.into_iter();
    let with_recordings = calls.map(|record| StoredCall {
        recordings: recordings.remove(&record.call_id).unwrap_or_default(),
        record,
    });
    Ok(with_recordings.collect())
}

fn recording(row: &SqliteRow) -> Result<RecordingRecord, StoreError> {
    Ok(RecordingRecord {
        recording_id: column(row, "recording_id")?,
        call_id: column(row, "call_id")?,
        tenant: column(row, "tenant")?,
        conference: column(row, "conference")?,
        ended_unix_ms: column(row, "ended_unix_ms")?,
        ending: RecordingEnding {
            path: column(row, "path")?,
            cause: named(row, "cause")?,
            duration_ms: to_u64(column(row, "duration_ms")?),
            bytes: to_u64(column(row, "bytes")?),
            lost_packets: to_u64(column(row, "lost_packets")?),
            sha256: column(row, "sha256")?,
        },
    })
}
