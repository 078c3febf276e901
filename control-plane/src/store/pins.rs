//! Conference PINs on their way into the store: hashed, whoever wrote them.

use std::collections::BTreeMap;

use sqlx::{Connection, SqliteConnection};

use super::StoreError;
use super::connection::translate;
use super::plan::{self, Pins};
use super::records::column;
use crate::call::Pin;
use crate::pin::PinHash;
use crate::site::Site;

/// The hashes of the PINs that `site` states. One that the store has already is kept, so that a
/// second apply changes nothing. Takes a tenth of a second for each, and holds no lock meanwhile.
pub(super) async fn hashed(
    connection: &mut SqliteConnection,
    site: &Site,
) -> Result<Pins, StoreError> {
    let mut pins = Pins::new();
    if site
        .conferences
        .iter()
        .all(|conference| conference.pin.is_none())
    {
        return Ok(pins);
    }
    let known = known(connection).await?;
    for conference in &site.conferences {
        let Some(pin) = &conference.pin else { continue };
        let key = plan::conference_key(conference);
        let same = known.get(&key.1).filter(|hash| hash.is_of(pin));
        let hash = same.cloned().unwrap_or_else(|| fresh(pin));
        pins.insert(key, hash);
    }
    Ok(pins)
}

/// By tenant and name of the conference.
async fn known(connection: &mut SqliteConnection) -> Result<BTreeMap<String, PinHash>, StoreError> {
    let rows = sqlx::query(
        "SELECT tenants.name || '/' || conferences.name AS key, pin FROM conferences \
         JOIN tenants ON tenants.id = tenant_id WHERE pin IS NOT NULL",
    )
    .fetch_all(connection)
    .await
    .map_err(translate)?;
    let mut known = BTreeMap::new();
    for row in &rows {
        let text: &str = column(row, "pin")?;
        // What is none is written anew.
        if let Ok(hash) = text.parse() {
            known.insert(column(row, "key")?, hash);
        }
    }
    Ok(known)
}

/// Hashes PINs that an earlier release left in clear, and has their pages overwritten.
pub(super) async fn hash_clear(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let clear =
        sqlx::query("SELECT id, pin FROM conferences WHERE pin IS NOT NULL AND pin NOT LIKE '%$%'")
            .fetch_all(&mut *connection)
            .await
            .map_err(translate)?;
    if clear.is_empty() {
        return Ok(());
    }
    sqlx::query("PRAGMA secure_delete = ON")
        .execute(&mut *connection)
        .await
        .map_err(translate)?;
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(translate)?;
    for row in &clear {
        let (id, pin): (i64, String) = (column(row, "id")?, column(row, "pin")?);
        sqlx::query("UPDATE conferences SET pin = ? WHERE id = ? AND pin = ?")
            .bind(fresh(&Pin(pin.clone())).to_string())
            .bind(id)
            .bind(pin)
            .execute(&mut *transaction)
            .await
            .map_err(translate)?;
    }
    transaction.commit().await.map_err(translate)?;
    tracing::info!(
        count = clear.len(),
        "conference PINs that stood in clear are hashed now"
    );
    Ok(())
}

fn fresh(pin: &Pin) -> PinHash {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).expect("getrandom(2) does not fail once the kernel has booted");
    PinHash::new(pin, salt)
}
