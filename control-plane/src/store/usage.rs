//! What members have used up of the day: counted from call records, so that a restarted daemon
//! does not give everybody a fresh allowance.

use sqlx::SqliteConnection;

use super::StoreError;
use super::connection::translate;
use super::records::{column, named};
use crate::site::{Extension, Name};

/// Calls of one member that went out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundUsage {
    /// The member's tenant.
    pub tenant: Name,
    /// The member.
    pub member: Extension,
    /// Calls that were sent to a trunk.
    pub calls: u32,
    /// Talked, seconds.
    pub secs: u64,
}

/// Emergency calls are not counted: they were dialled without `+`.
pub(super) async fn outbound(
    connection: &mut SqliteConnection,
    since_unix_ms: i64,
) -> Result<Vec<OutboundUsage>, StoreError> {
    let rows = sqlx::query(
        "SELECT tenant, caller, COUNT(*) AS calls, SUM((duration_ms + 999) / 1000) AS secs \
         FROM call_records WHERE direction = 'outbound' AND start_unix_ms >= ? \
         AND trunk IS NOT NULL AND callee LIKE '+%' AND tenant IS NOT NULL \
         GROUP BY tenant, caller",
    )
    .bind(since_unix_ms)
    .fetch_all(connection)
    .await
    .map_err(translate)?;
    rows.iter()
        .map(|row| {
            let (calls, secs): (i64, i64) = (column(row, "calls")?, column(row, "secs")?);
            Ok(OutboundUsage {
                tenant: named(row, "tenant")?,
                member: named(row, "caller")?,
                calls: u32::try_from(calls).unwrap_or(u32::MAX),
                secs: u64::try_from(secs).unwrap_or(0),
            })
        })
        .collect()
}
