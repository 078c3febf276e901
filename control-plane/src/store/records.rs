//! Call records.

use std::fmt::Display;
use std::str::FromStr;

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};

use super::connection::translate;
use super::{StoreError, recordings};
use crate::cdr::{CallRecord, DetailRecord, EndCause, LegMedia, LegQuality};

/// Which call records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordQuery {
    /// At most this many.
    pub limit: u32,
    /// Only calls that began at or after this, milliseconds since the Unix epoch.
    pub since_unix_ms: Option<i64>,
}

/// Adds all or none, and says how many were new.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    records: &[DetailRecord],
) -> Result<u64, StoreError> {
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(translate)?;
    let mut added = 0;
    for record in records {
        added += match record {
            DetailRecord::Call(call) => add_call(&mut transaction, call).await?,
            DetailRecord::Recording(recording) => {
                recordings::add(&mut transaction, recording).await?
            }
        };
    }
    transaction.commit().await.map_err(translate)?;
    Ok(added)
}

async fn add_call(
    connection: &mut SqliteConnection,
    record: &CallRecord,
) -> Result<u64, StoreError> {
    let insert = sqlx::query(
        "INSERT INTO call_records (call_id, start_unix_ms, answer_unix_ms, end_unix_ms, \
             direction, trunk, tenant, did, caller, callee, result, sip_status, ended_by, \
             setup_ms, duration_ms, caller_codec, callee_codec, caller_rx_packets, \
             caller_tx_packets, callee_rx_packets, callee_tx_packets, \
             end_cause, caller_lost_packets, caller_reordered_packets, \
             caller_duplicate_packets, caller_jitter_micros, caller_jitter_max_micros, \
             caller_rtt_micros, caller_mos_centi, caller_remote_lost_packets, \
             caller_remote_jitter_micros, caller_srtp_failed_packets, callee_lost_packets, \
             callee_reordered_packets, callee_duplicate_packets, callee_jitter_micros, \
             callee_jitter_max_micros, callee_rtt_micros, callee_mos_centi, \
             callee_remote_lost_packets, callee_remote_jitter_micros, \
             callee_srtp_failed_packets) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, \
             ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (call_id) DO NOTHING",
    )
    .bind(&record.call_id)
    .bind(record.start_unix_ms)
    .bind(record.answer_unix_ms)
    .bind(record.end_unix_ms)
    .bind(record.direction.as_str())
    .bind(&record.trunk)
    .bind(&record.tenant)
    .bind(&record.did)
    .bind(&record.caller)
    .bind(&record.callee)
    .bind(record.result.as_str())
    .bind(record.sip_status)
    .bind(record.ended_by.as_str())
    .bind(record.setup_ms.map(to_i64))
    .bind(to_i64(record.duration_ms))
    .bind(&record.caller_codec)
    .bind(&record.callee_codec)
    .bind(to_i64(record.caller_media.rx_packets))
    .bind(to_i64(record.caller_media.tx_packets))
    .bind(to_i64(record.callee_media.rx_packets))
    .bind(to_i64(record.callee_media.tx_packets))
    .bind(record.end_cause.map(EndCause::as_str));
    let done = [&record.caller_media.quality, &record.callee_media.quality]
        .into_iter()
        .fold(insert, |insert, quality| {
            insert
                .bind(to_i64(quality.lost_packets))
                .bind(to_i64(quality.reordered_packets))
                .bind(to_i64(quality.duplicate_packets))
                .bind(quality.jitter_micros)
                .bind(quality.jitter_max_micros)
                .bind(quality.rtt_micros)
                .bind(quality.mos_centi)
                .bind(to_i64(quality.remote_lost_packets))
                .bind(quality.remote_jitter_micros)
                .bind(to_i64(quality.srtp_failed_packets))
        })
        .execute(connection)
        .await
        .map_err(translate)?;
    Ok(done.rows_affected())
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    query: RecordQuery,
) -> Result<Vec<CallRecord>, StoreError> {
    sqlx::query(
        "SELECT * FROM call_records WHERE start_unix_ms >= ? \
         ORDER BY start_unix_ms DESC, call_id LIMIT ?",
    )
    .bind(query.since_unix_ms.unwrap_or(i64::MIN))
    .bind(query.limit)
    .fetch_all(connection)
    .await
    .map_err(translate)?
    .iter()
    .map(record)
    .collect()
}

fn record(row: &SqliteRow) -> Result<CallRecord, StoreError> {
    Ok(CallRecord {
        call_id: column(row, "call_id")?,
        start_unix_ms: column(row, "start_unix_ms")?,
        answer_unix_ms: column(row, "answer_unix_ms")?,
        end_unix_ms: column(row, "end_unix_ms")?,
        direction: named(row, "direction")?,
        trunk: column(row, "trunk")?,
        tenant: column(row, "tenant")?,
        did: column(row, "did")?,
        caller: column(row, "caller")?,
        callee: column(row, "callee")?,
        result: named(row, "result")?,
        sip_status: column(row, "sip_status")?,
        ended_by: named(row, "ended_by")?,
        end_cause: optional_named(row, "end_cause")?,
        setup_ms: column::<Option<i64>>(row, "setup_ms")?.map(to_u64),
        duration_ms: to_u64(column(row, "duration_ms")?),
        caller_codec: column(row, "caller_codec")?,
        callee_codec: column(row, "callee_codec")?,
        caller_media: LegMedia {
            rx_packets: to_u64(column(row, "caller_rx_packets")?),
            tx_packets: to_u64(column(row, "caller_tx_packets")?),
            quality: LegQuality {
                lost_packets: to_u64(column(row, "caller_lost_packets")?),
                reordered_packets: to_u64(column(row, "caller_reordered_packets")?),
                duplicate_packets: to_u64(column(row, "caller_duplicate_packets")?),
                jitter_micros: column(row, "caller_jitter_micros")?,
                jitter_max_micros: column(row, "caller_jitter_max_micros")?,
                rtt_micros: column(row, "caller_rtt_micros")?,
                mos_centi: column(row, "caller_mos_centi")?,
                remote_lost_packets: to_u64(column(row, "caller_remote_lost_packets")?),
                remote_jitter_micros: column(row, "caller_remote_jitter_micros")?,
                srtp_failed_packets: to_u64(column(row, "caller_srtp_failed_packets")?),
            },
        },
        callee_media: LegMedia {
            rx_packets: to_u64(column(row, "callee_rx_packets")?),
            tx_packets: to_u64(column(row, "callee_tx_packets")?),
            quality: LegQuality {
                lost_packets: to_u64(column(row, "callee_lost_packets")?),
                reordered_packets: to_u64(column(row, "callee_reordered_packets")?),
                duplicate_packets: to_u64(column(row, "callee_duplicate_packets")?),
                jitter_micros: column(row, "callee_jitter_micros")?,
                jitter_max_micros: column(row, "callee_jitter_max_micros")?,
                rtt_micros: column(row, "callee_rtt_micros")?,
                mos_centi: column(row, "callee_mos_centi")?,
                remote_lost_packets: to_u64(column(row, "callee_remote_lost_packets")?),
                remote_jitter_micros: column(row, "callee_remote_jitter_micros")?,
                srtp_failed_packets: to_u64(column(row, "callee_srtp_failed_packets")?),
            },
        },
    })
}

/// A column as the database library reads it.
pub(super) fn column<'r, T>(row: &'r SqliteRow, name: &'static str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(name)
        .map_err(|error| StoreError::Corrupt(format!("column {name}: {error}")))
}

/// A text column that holds one of our own types.
pub(super) fn named<T>(row: &SqliteRow, name: &'static str) -> Result<T, StoreError>
where
    T: FromStr<Err: Display>,
{
    let text: &str = column(row, name)?;
    text.parse()
        .map_err(|error| StoreError::Corrupt(format!("column {name} is {text:?}: {error}")))
}

/// As [`named`], of a column that may be null.
pub(super) fn optional_named<T>(
    row: &SqliteRow,
    name: &'static str,
) -> Result<Option<T>, StoreError>
where
    T: FromStr<Err: Display>,
{
    match column::<Option<&str>>(row, name)? {
        Some(_) => named(row, name).map(Some),
        None => Ok(None),
    }
}

/// SQLite integers are signed. A count beyond that is no count.
pub(super) fn to_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn to_u64(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
