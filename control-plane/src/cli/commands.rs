//! What each subcommand does.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use serde::Serialize;
use sipx_sip::Uri;
use trunkline_sip::TransportKind;

use super::table::{duration, or_dash, utc, write_table};
use crate::cdr::{LegMedia, StoredCall};
use crate::config::ControlConfig;
use crate::operator::{self, AskError, Reply, Request, StatusReport};
use crate::resolver::Locator;
use crate::site::{Availability, Extension, ForwardEvent, Name, Site};
use crate::store::{self, ApplyOptions, Plan, RecordQuery, StoreError, StoreHandle, StoreOptions};
use crate::switch::CallView;

pub(super) const UNEXPECTED_REPLY: &str =
    "the daemon answered something else; is it of another release?";

/// `90s`, `15m`, `24h` or `7d` in milliseconds.
pub(super) fn parse_age_ms(text: &str) -> Result<i64, String> {
    let wrong = || "expected a number with s, m, h or d, e.g. 24h".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let unit_ms = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return Err(wrong()),
    };
    let count: u32 = text
        .strip_suffix(unit)
        .and_then(|count| count.parse().ok())
        .ok_or_else(wrong)?;
    Ok(i64::from(count).saturating_mul(unit_ms))
}

/// Opens the store, asks one thing of it, and closes it.
fn with_store<T>(
    config: &ControlConfig,
    ask: impl AsyncFnOnce(&StoreHandle) -> Result<T, StoreError>,
) -> anyhow::Result<T> {
    let (store, thread) = store::open(StoreOptions::new(config.store_path(), &config.sip.realm))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let result = runtime.block_on(ask(&store));
    drop(store);
    thread.join();
    Ok(result?)
}

/// Looks `uri` up as the daemon would, with an empty cache.
pub(super) fn resolve(
    config: &ControlConfig,
    uri: &str,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Row<'a> {
        transport: &'static str,
        address: String,
        certificate_name: Option<&'a str>,
        ttl_secs: u32,
    }

    let parsed = Uri::parse(Bytes::copy_from_slice(uri.as_bytes()));
    let parsed = parsed.with_context(|| format!("{uri} is not a URI"))?;
    let mut kinds: Vec<TransportKind> = Vec::new();
    for listen in &config.sip.listen {
        if !kinds.contains(&listen.transport) {
            kinds.push(listen.transport);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let located = runtime.block_on(async {
        let locator = Locator::new(&config.sip.dns, kinds);
        locator.locate(&parsed).await
    });
    let located = located.with_context(|| uri.to_owned())?;
    let rows: Vec<Row<'_>> = located
        .hops
        .iter()
        .map(|hop| Row {
            transport: hop.kind.name(),
            address: hop.address.to_string(),
            certificate_name: hop.domain.as_deref(),
            ttl_secs: located.ttl_secs,
        })
        .collect();
    if json {
        return write_json(out, &rows);
    }
    let cells = |row: &Row<'_>| {
        [
            row.transport.to_owned(),
            row.address.clone(),
            or_dash(row.certificate_name),
            format!("{} s", row.ttl_secs),
        ]
    };
    let titles = ["TRANSPORT", "ADDRESS", "CERTIFICATE", "HOLDS FOR"];
    let cells: Vec<_> = rows.iter().map(cells).collect();
    Ok(write_table(out, titles, &cells)?)
}

/// What became of telling the daemon about a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Daemon {
    Reloaded,
    NotRunning,
    NotAsked,
}

fn notify(config: &ControlConfig) -> anyhow::Result<Daemon> {
    match operator::ask(&config.node.control_socket(), Request::Reload) {
        Ok(_) => Ok(Daemon::Reloaded),
        Err(AskError::NotRunning(_)) => Ok(Daemon::NotRunning),
        Err(error) => Err(error).context(
            "the change is stored, but the running daemon has not taken it; restart it or apply again",
        ),
    }
}

pub(super) fn apply(
    config: &ControlConfig,
    path: &Path,
    options: ApplyOptions,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let site = Site::load(path, &config.sip.realm, &config.edge.media_addresses)?;
    let plan = with_store(config, async |store| store.apply(site, options).await)?;
    // Also without changes: an earlier notice may have failed, as its message says.
    let daemon = if options.dry_run {
        Daemon::NotAsked
    } else {
        notify(config)?
    };
    if json {
        #[derive(Serialize)]
        struct Applied<'a> {
            dry_run: bool,
            #[serde(flatten)]
            plan: &'a Plan,
            daemon: Daemon,
        }
        let applied = Applied {
            dry_run: options.dry_run,
            plan: &plan,
            daemon,
        };
        return write_json(out, &applied);
    }
    writeln!(out, "{plan}")?;
    Ok(writeln!(
        out,
        "{}",
        match daemon {
            Daemon::Reloaded => "the running daemon follows it",
            Daemon::NotRunning => "no daemon is running; it follows when it starts",
            Daemon::NotAsked => "dry run: nothing was changed",
        }
    )?)
}

pub(super) fn set_member(
    config: &ControlConfig,
    (tenant, extension): (Option<&Name>, &Extension),
    availability: Option<Availability>,
    forwards: Vec<(ForwardEvent, Option<String>)>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let said: Vec<String> = forwards
        .iter()
        .map(|(event, target)| {
            let to = target.as_deref().unwrap_or("nowhere");
            format!("forwards {to} when {event}", event = event.as_str())
        })
        .chain(availability.map(|availability| format!("is {availability}")))
        .collect();
    let member = with_store(config, async |store| {
        let mut found = None;
        if let Some(availability) = availability {
            let (tenant, extension) = (tenant.cloned(), extension.clone());
            found = Some(
                store
                    .set_availability(tenant, extension, availability)
                    .await?,
            );
        }
        if !forwards.is_empty() {
            let (tenant, extension) = (tenant.cloned(), extension.clone());
            found = Some(store.set_forwards(tenant, extension, forwards).await?);
        }
        Ok(found.unwrap_or_default())
    })?;
    notify(config)?;
    for line in said {
        writeln!(out, "member {member}/{extension} {line}")?;
    }
    Ok(())
}

/// Has the running daemon read everything again that may have changed under it.
pub(super) fn reload(config: &ControlConfig, out: &mut dyn Write) -> anyhow::Result<()> {
    for request in [Request::Reload, Request::ReloadTls] {
        operator::ask(&config.node.control_socket(), request)?;
    }
    Ok(writeln!(
        out,
        "routing data and certificates were read again"
    )?)
}

pub(super) fn status(
    config: &ControlConfig,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let reply = operator::ask(&config.node.control_socket(), Request::Status)?;
    let Reply::Status(status) = reply else {
        bail!(UNEXPECTED_REPLY);
    };
    if json {
        return write_json(out, &status);
    }
    Ok(write_status(out, &status)?)
}

fn write_status(out: &mut dyn Write, status: &StatusReport) -> std::io::Result<()> {
    let directory = &status.directory;
    writeln!(
        out,
        "{} runs release {} as process {}",
        status.node, status.version, status.pid
    )?;
    match &status.call_thread {
        None => writeln!(out, "calls     the call thread does not answer")?,
        Some(calls) => {
            let draining = if calls.draining { ", draining" } else { "" };
            writeln!(
                out,
                "up        {}{draining}",
                duration(calls.uptime_secs * 1_000)
            )?;
            writeln!(out, "listens   {}", calls.listen.join(" "))?;
            writeln!(
                out,
                "calls     {} of {}; {} transactions, {} registrations",
                calls.calls_active,
                calls.calls_max,
                calls.transactions_active,
                calls.registrations_active
            )?;
            let connected = if calls.edge_connected {
                "connected"
            } else {
                "not connected; is trunkline-edge running with the same [node] run_dir?"
            };
            writeln!(out, "edge      {connected}")?;
            for worker in &calls.workers {
                writeln!(
                    out,
                    "worker {}  {} sessions, {} of {} port pairs, heartbeat {} ms ago",
                    worker.worker,
                    worker.sessions_active,
                    worker.ports_used,
                    worker.ports_capacity,
                    worker.heartbeat_age_ms
                )?;
            }
            for interface in &calls.interfaces {
                let advertised = if interface.address == interface.advertise {
                    String::new()
                } else {
                    format!(" as {}", interface.advertise)
                };
                writeln!(
                    out,
                    "media     {}: {}{advertised}, {} of {} port pairs",
                    interface.name,
                    interface.address,
                    interface.ports_used,
                    interface.ports_capacity
                )?;
            }
        }
    }
    writeln!(
        out,
        "routing   {} trunks, {} members, {} DIDs",
        directory.trunks, directory.members, directory.dids
    )?;
    writeln!(
        out,
        "store     {}",
        status.store_problem.as_deref().unwrap_or("ok")
    )?;
    let records = status.cdr_problem.as_deref().unwrap_or("ok");
    writeln!(
        out,
        "records   {records}, {} bytes in the spool",
        status.cdr_spool_bytes
    )?;
    for certificate in status.tls.iter().flat_map(|tls| &tls.certificates) {
        writeln!(
            out,
            "tls       {} for {}, until {}",
            certificate.file,
            certificate.names.join(" "),
            utc(certificate.not_after_unix_secs.saturating_mul(1_000))
        )?;
    }
    if let Some(problem) = status
        .tls
        .as_ref()
        .and_then(|tls| tls.reload_problem.as_deref())
    {
        writeln!(out, "tls       the last reading was refused: {problem}")?;
    }
    Ok(())
}

pub(super) fn calls(
    config: &ControlConfig,
    limit: usize,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let reply = operator::ask(&config.node.control_socket(), Request::Calls { limit })?;
    let Reply::Calls(report) = reply else {
        bail!(UNEXPECTED_REPLY);
    };
    if json {
        return write_json(out, &report);
    }
    let rows: Vec<_> = report
        .calls
        .iter()
        .map(|call| {
            [
                call.call_id.clone(),
                call.state.clone(),
                duration(call.age_ms),
                call.caller.clone(),
                or_dash(call.did.as_deref()),
                or_dash(call.callee.as_deref()),
                or_dash(call.trunk.as_deref()),
                codecs(call),
                quality(call, |media| {
                    let mos = media.quality.mos_centi;
                    (mos > 0).then(|| format!("{:.1}", f64::from(mos) / 100.0))
                }),
                quality(call, |media| Some(format!("{:.1}", loss_percent(media)))),
                quality(call, |media| {
                    Some(format!(
                        "{:.0}",
                        f64::from(media.quality.jitter_micros) / 1e3
                    ))
                }),
                quality(call, |media| {
                    let rtt = media.quality.rtt_micros;
                    (rtt > 0).then(|| format!("{:.0}", f64::from(rtt) / 1e3))
                }),
            ]
        })
        .collect();
    let titles = [
        "CALL",
        "STATE",
        "AGE",
        "CALLER",
        "DID",
        "MEMBER",
        "TRUNK",
        "CODEC",
        "MOS",
        "LOSS %",
        "JITTER MS",
        "RTT MS",
    ];
    write_table(out, titles, &rows)?;
    Ok(writeln!(out, "{} of {} calls", rows.len(), report.total)?)
}

/// One figure of both legs, the caller's first; a dash where it is not known.
fn quality(call: &CallView, figure: impl Fn(&LegMedia) -> Option<String>) -> String {
    let [caller, callee] = [&call.caller_media, &call.callee_media]
        .map(|media| or_dash(media.as_ref().and_then(&figure).as_deref()));
    format!("{caller}/{callee}")
}

/// The codec of both sides, or of each where the edge converts.
fn codecs(call: &CallView) -> String {
    let caller = or_dash(call.codec.as_deref());
    match &call.callee_codec {
        Some(callee) if *callee != caller => format!("{caller}/{callee}"),
        _ => caller,
    }
}

/// How much of what the leg's peer sent never arrived.
fn loss_percent(media: &LegMedia) -> f64 {
    let lost = media.quality.lost_packets;
    let sent = media.rx_packets.saturating_add(lost).max(1);
    lost as f64 * 100.0 / sent as f64
}

pub(super) fn records(
    config: &ControlConfig,
    limit: u32,
    age_ms: Option<i64>,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let query = query(limit, age_ms)?;
    let records = with_store(config, async |store| store.records(query).await)?;
    if json {
        return write_lines(out, &records);
    }
    let rows: Vec<_> = records
        .iter()
        .map(|StoredCall { record, .. }| {
            [
                utc(record.start_unix_ms),
                record.direction.to_string(),
                or_dash(record.trunk.as_deref()),
                record.caller.clone(),
                or_dash(record.did.as_deref()),
                or_dash(record.callee.as_deref()),
                record.result.to_string(),
                duration(record.duration_ms),
                record.call_id.clone(),
            ]
        })
        .collect();
    let titles = [
        "START",
        "DIRECTION",
        "TRUNK",
        "CALLER",
        "DID",
        "MEMBER",
        "RESULT",
        "TALK",
        "CALL",
    ];
    Ok(write_table(out, titles, &rows)?)
}

pub(super) fn recordings(
    config: &ControlConfig,
    limit: u32,
    age_ms: Option<i64>,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let query = query(limit, age_ms)?;
    let recordings = with_store(config, async |store| store.recordings(query).await)?;
    if json {
        return write_lines(out, &recordings);
    }
    let rows: Vec<_> = recordings
        .iter()
        .map(|recording| {
            let ending = &recording.ending;
            let of = recording.call_id.as_ref().or(recording.conference.as_ref());
            [
                utc(recording.ended_unix_ms),
                or_dash(recording.tenant.as_deref()),
                or_dash(of.map(String::as_str)),
                ending.cause.to_string(),
                duration(ending.duration_ms),
                ending.lost_packets.to_string(),
                ending.path.clone(),
            ]
        })
        .collect();
    let titles = [
        "ENDED",
        "TENANT",
        "CALL OR CONFERENCE",
        "CAUSE",
        "LENGTH",
        "LOST",
        "FILE",
    ];
    Ok(write_table(out, titles, &rows)?)
}

fn query(limit: u32, age_ms: Option<i64>) -> anyhow::Result<RecordQuery> {
    let since_unix_ms = match age_ms {
        Some(age_ms) => Some(unix_ms_now()?.saturating_sub(age_ms)),
        None => None,
    };
    Ok(RecordQuery {
        limit,
        since_unix_ms,
    })
}

fn write_lines(out: &mut dyn Write, records: &[impl Serialize]) -> anyhow::Result<()> {
    for record in records {
        serde_json::to_writer(&mut *out, record)?;
        writeln!(out)?;
    }
    Ok(())
}

fn unix_ms_now() -> anyhow::Result<i64> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock stands before 1970")?;
    match i64::try_from(now.as_millis()) {
        Ok(now) => Ok(now),
        Err(_) => bail!("the clock stands too far in the future"),
    }
}

pub(super) fn members(
    config: &ControlConfig,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let members = with_store(config, async |store| store.members().await)?;
    if json {
        return write_json(out, &members);
    }
    let rows: Vec<_> = members
        .into_iter()
        .map(|member| {
            [
                member.tenant,
                member.extension,
                member.name,
                member.sip_user,
                format!(
                    "{} (by {})",
                    member.availability, member.availability_set_by
                ),
                or_dash(member.forward_number.as_deref()),
            ]
        })
        .collect();
    let titles = [
        "TENANT",
        "EXTENSION",
        "NAME",
        "SIP USER",
        "AVAILABILITY",
        "FORWARD",
    ];
    Ok(write_table(out, titles, &rows)?)
}

pub(super) fn dids(config: &ControlConfig, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let dids = with_store(config, async |store| store.dids().await)?;
    if json {
        return write_json(out, &dids);
    }
    let rows: Vec<_> = dids
        .into_iter()
        .map(|did| [did.number, did.tenant, did.member])
        .collect();
    Ok(write_table(out, ["NUMBER", "TENANT", "MEMBER"], &rows)?)
}

/// Trunks as the store has them, for when no daemon can say more.
pub(super) fn stored_trunks(
    config: &ControlConfig,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let trunks = with_store(config, async |store| store.trunks().await)?;
    if json {
        return write_json(out, &trunks);
    }
    let rows: Vec<_> = trunks
        .into_iter()
        .map(|trunk| [trunk.name, trunk.tenant, trunk.sources.join(" ")])
        .collect();
    Ok(write_table(out, ["TRUNK", "TENANT", "SOURCES"], &rows)?)
}

pub(super) fn write_json(out: &mut dyn Write, value: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    Ok(writeln!(out)?)
}
