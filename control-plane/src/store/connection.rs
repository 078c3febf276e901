//! Opening the file, its schema, and what database errors mean.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlSafeStr, SqliteConnection};

use super::{StoreError, StoreOptions, pins};

/// SQLite result codes, <https://www.sqlite.org/rescode.html>; the low byte is the primary code.
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_FULL: i32 = 13;

/// The schema's history. A migration that was released is never edited.
fn migrator() -> Migrator {
    let simple = |version, name: &'static str, sql: &'static str| {
        let sql = sql.into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(vec![
        simple(1, "spine", include_str!("../../migrations/0001_spine.sql")),
        simple(2, "srtp", include_str!("../../migrations/0002_srtp.sql")),
        simple(
            3,
            "media_from",
            include_str!("../../migrations/0003_media_from.sql"),
        ),
        simple(
            4,
            "quality",
            include_str!("../../migrations/0004_quality.sql"),
        ),
        simple(
            5,
            "media_interface",
            include_str!("../../migrations/0005_media_interface.sql"),
        ),
        simple(
            6,
            "media_functions",
            include_str!("../../migrations/0006_media_functions.sql"),
        ),
        simple(
            7,
            "recordings",
            include_str!("../../migrations/0007_recordings.sql"),
        ),
        simple(
            8,
            "conference_entry",
            include_str!("../../migrations/0008_conference_entry.sql"),
        ),
        simple(
            10,
            "trunks out",
            include_str!("../../migrations/0010_trunks_out.sql"),
        ),
        simple(
            15,
            "call routing",
            include_str!("../../migrations/0015_call_routing.sql"),
        ),
        simple(
            20,
            "digest_sha512_256",
            include_str!("../../migrations/0020_digest_sha512_256.sql"),
        ),
    ])
}

pub(super) async fn open(options: &StoreOptions) -> Result<SqliteConnection, StoreError> {
    let failed = |reason: String| StoreError::Open {
        path: options.path.display().to_string(),
        reason,
    };
    create_file(&options.path).map_err(|error| failed(explain(&options.path, &error)))?;
    let mut connection = SqliteConnectOptions::new()
        .filename(&options.path)
        .create_if_missing(false)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A call record leaves the spool once the store has it, so a commit must survive a power
        // cut; NORMAL would only survive a crash of the process.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(options.busy_timeout)
        .connect()
        .await
        .map_err(|error| match translate(error) {
            StoreError::Database(reason) => failed(reason),
            other => other,
        })?;
    migrator()
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|error| match error {
            MigrateError::VersionMissing(version) => failed(format!(
                "schema version {version} is of a later release; install that release again"
            )),
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                translate(error)
            }
            other => failed(other.to_string()),
        })?;
    pins::hash_clear(&mut connection).await?;
    Ok(connection)
}

pub(super) async fn close(connection: SqliteConnection) {
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the store did not close cleanly; SQLite repairs it at the next start");
    }
}

pub(super) async fn ping(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("SELECT count(*) FROM tenants")
        .fetch_one(connection)
        .await
        .map_err(translate)?;
    Ok(())
}

/// What the database said, in our words.
pub(super) fn translate(error: sqlx::Error) -> StoreError {
    let code = match &error {
        sqlx::Error::Database(database) => database.code(),
        _ => None,
    };
    match code
        .and_then(|code| code.parse::<i32>().ok())
        .map(|code| code & 0xff)
    {
        Some(SQLITE_BUSY | SQLITE_LOCKED) => StoreError::Busy,
        Some(SQLITE_FULL) => StoreError::Full,
        _ => StoreError::Database(error.to_string()),
    }
}

/// The file holds password digests, so nobody but its owner may read it. When root creates it
/// (an `apply` before the first start) it is given to whoever owns the directory: the daemon.
/// SQLite makes its side files like the main one.
fn create_file(path: &Path) -> io::Result<()> {
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match created {
        Ok(_) => {
            if rustix::process::geteuid().is_root()
                && let Some(dir) = path.parent()
            {
                let dir = std::fs::metadata(dir)?;
                std::os::unix::fs::chown(path, Some(dir.uid()), Some(dir.gid()))?;
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn explain(path: &Path, error: &io::Error) -> String {
    let dir = path.parent().unwrap_or(path).display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("directory {dir} does not exist; create it or correct [node] state_dir")
        }
        io::ErrorKind::PermissionDenied => format!("{error}; run as the owner of {dir}"),
        _ => error.to_string(),
    }
}
