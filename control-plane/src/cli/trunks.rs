//! `trunks`: how the carriers' connections stand.

use std::io::Write;

use anyhow::bail;

use super::commands::{self, UNEXPECTED_REPLY, write_json};
use super::table::{or_dash, write_table};
use crate::config::ControlConfig;
use crate::operator::{self, AskError, Reply, Request};
use crate::switch::{DestinationView, TrunkView};

pub(super) fn list(config: &ControlConfig, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let reply = match operator::ask(&config.node.control_socket(), Request::Trunks) {
        Ok(reply) => reply,
        // Nobody knows how they stand; what they are is in the store.
        Err(AskError::NotRunning(_)) => return commands::stored_trunks(config, json, out),
        Err(error) => return Err(error.into()),
    };
    let Reply::Trunks { trunks } = reply else {
        bail!(UNEXPECTED_REPLY);
    };
    if json {
        return write_json(out, &trunks);
    }
    let rows: Vec<_> = trunks.iter().flat_map(rows).collect();
    let titles = [
        "TRUNK",
        "TENANT",
        "STATE",
        "DESTINATION",
        "ADDRESS",
        "RTT",
        "REGISTERED",
        "CHANNELS",
        "CPS",
        "LAST CAUSE",
    ];
    Ok(write_table(out, titles, &rows)?)
}

/// One row per destination; the first one has what is the trunk's.
fn rows(trunk: &TrunkView) -> Vec<[String; 10]> {
    let registered = trunk.registration.as_ref().map(|registration| {
        let left = registration.expires_secs.map(|secs| format!(" {secs}s"));
        format!(
            "{}{}",
            registration.state.as_str(),
            left.unwrap_or_default()
        )
    });
    let channels = match trunk.channels_max {
        Some(max) => format!("{}/{max}", trunk.channels),
        None => trunk.channels.to_string(),
    };
    let cps = match (trunk.cps, trunk.waiting) {
        (0, _) => None,
        (cps, 0) => Some(cps.to_string()),
        (cps, waiting) => Some(format!("{cps} ({waiting} waiting)")),
    };
    let cause = trunk.last_cause.map(|status| status.to_string());
    let first = |destination: Option<&DestinationView>| {
        let [state, host, address, rtt] = cells(destination);
        [
            trunk.configured.name.clone(),
            trunk.configured.tenant.clone(),
            if destination.is_some() {
                state
            } else {
                trunk.state.as_str().to_owned()
            },
            host,
            address,
            rtt,
            or_dash(registered.as_deref()),
            channels.clone(),
            or_dash(cps.as_deref()),
            or_dash(cause.as_deref()),
        ]
    };
    let mut destinations = trunk.destinations.iter();
    let mut rows = vec![first(destinations.next())];
    rows.extend(destinations.map(|destination| {
        let [state, host, address, rtt] = cells(Some(destination));
        let none = String::new;
        [
            none(),
            none(),
            state,
            host,
            address,
            rtt,
            none(),
            none(),
            none(),
            none(),
        ]
    }));
    rows
}

fn cells(destination: Option<&DestinationView>) -> [String; 4] {
    let Some(destination) = destination else {
        return [(); 4].map(|()| or_dash(None));
    };
    let rtt = destination.rtt_micros.map(|micros| {
        let millis = f64::from(micros) / 1e3;
        format!("{millis:.1} ms")
    });
    let address = destination.address.as_deref();
    [
        destination.state.as_str().to_owned(),
        destination.host.clone(),
        or_dash(address.or(destination.problem.as_deref())),
        or_dash(rtt.as_deref()),
    ]
}
