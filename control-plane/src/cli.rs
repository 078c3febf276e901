//! The command line: `trunkline-control` runs the daemon, its subcommands operate it.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it could not be done; standard error says why |
//! | 2 | the command line, the configuration or the site file is wrong |
//!
//! `status`, `calls`, `call`, `conferences` and `conference` speak to the running daemon. Everything else works on the store, whether
//! a daemon runs or not, and tells a running one what has changed.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use trunkline_edge_api::config::ConfigError;

use crate::config::ControlConfig;
use crate::logging;
use crate::site::{Availability, Extension, ForwardEvent, Forwards, Name};
use call::CallCommand;
use conference::ConferenceCommand;

mod call;
mod commands;
mod conference;
mod table;
#[cfg(test)]
mod tests;
mod trace;
mod trunks;

/// Where packages put the configuration.
const CONFIG_PATH: &str = "/etc/trunkline/trunkline.toml";

/// Call records that `cdr` shows when it is not told.
const RECORDS_SHOWN: u32 = 50;

/// Call records that `cdr --json` prints when it is not told.
const RECORDS_PRINTED: u32 = 100_000;

#[derive(Debug, Parser)]
#[command(
    name = "trunkline-control",
    version,
    about = "Trunkline's control plane"
)]
struct Arguments {
    /// The configuration file of both daemons
    #[arg(long, global = true, value_name = "PATH", default_value = CONFIG_PATH)]
    config: PathBuf,
    /// Check the configuration and exit
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring tenants, trunks, members and DIDs to the form that a site file states
    Apply {
        /// The site file
        site: PathBuf,
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Also delete what no apply has created
        #[arg(long)]
        prune: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how the running daemon is
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List live calls, the oldest first
    Calls {
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Do something to a live call, or see what has happened in it
    Call {
        /// Its id, as `calls` shows it
        id: String,
        #[command(subcommand)]
        command: CallCommand,
        /// Print JSON
        #[arg(long, global = true)]
        json: bool,
    },
    /// List conferences with members
    Conferences {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what was on the wire of a call, live or over: a ladder of its SIP messages
    Trace {
        /// Its id, as `calls` and `cdr` show it, or a Call-ID of SIP
        id: String,
        #[command(flatten)]
        form: trace::TraceForm,
    },
    /// Do something to a conference
    Conference {
        /// Its name, as `conferences` shows it
        name: Name,
        /// Its tenant, where several have a conference of the name
        #[arg(long, global = true)]
        tenant: Option<Name>,
        #[command(subcommand)]
        command: ConferenceCommand,
        /// Print JSON
        #[arg(long, global = true)]
        json: bool,
    },
    /// List recordings that are over, of calls and of conferences, the newest first
    Recordings {
        /// At most this many; 50 when not given, 100000 with --json
        #[arg(long)]
        limit: Option<u32>,
        /// Only those that ended within this time, e.g. 90s, 15m, 24h or 7d
        #[arg(long, value_name = "TIME", value_parser = commands::parse_age_ms)]
        since: Option<i64>,
        /// Print JSON, one recording per line
        #[arg(long)]
        json: bool,
    },
    /// List call records, the newest first
    Cdr {
        /// At most this many; 50 when not given, 100000 with --json
        #[arg(long)]
        limit: Option<u32>,
        /// Only calls that began within this time, e.g. 90s, 15m, 24h or 7d
        #[arg(long, value_name = "TIME", value_parser = commands::parse_age_ms)]
        since: Option<i64>,
        /// Print JSON, one record per line
        #[arg(long)]
        json: bool,
    },
    /// List members
    Members {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List DIDs
    Dids {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List trunks: state, round trip, registration, channels, last cause
    Trunks {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change a member
    Member {
        #[command(subcommand)]
        command: MemberCommand,
    },
    /// Have the running daemon read routing data and certificates again
    Reload,
    /// Look up where the requests of a SIP URI go, in the order they are tried
    Resolve {
        /// Say sip:trunk.example.com or sips:example.com
        uri: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a commented configuration file with every key at its default
    ConfigReference,
}

/// What a member may choose; at least one thing.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct MemberChoices {
    /// online, busy or offline
    #[arg(long)]
    availability: Option<Availability>,
    /// Where every call goes: an extension, an E.164 number, or "off"
    #[arg(long, value_name = "TARGET")]
    forward_always: Option<ForwardTarget>,
    /// Where calls go while the phone or the member is busy
    #[arg(long, value_name = "TARGET")]
    forward_busy: Option<ForwardTarget>,
    /// Where calls go that nobody answers
    #[arg(long, value_name = "TARGET")]
    forward_no_answer: Option<ForwardTarget>,
    /// Where calls go while no phone is registered
    #[arg(long, value_name = "TARGET")]
    forward_offline: Option<ForwardTarget>,
}

impl MemberChoices {
    fn forwards(&self) -> Vec<(ForwardEvent, Option<String>)> {
        [
            (ForwardEvent::Always, &self.forward_always),
            (ForwardEvent::Busy, &self.forward_busy),
            (ForwardEvent::NoAnswer, &self.forward_no_answer),
            (ForwardEvent::Offline, &self.forward_offline),
        ]
        .into_iter()
        .filter_map(|(event, target)| Some((event, target.as_ref()?.0.clone())))
        .collect()
    }
}

/// Where calls are forwarded to; `None`: nowhere.
#[derive(Debug, Clone)]
struct ForwardTarget(Option<String>);

impl FromStr for ForwardTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            _ if Forwards::is_target(text) => Ok(Self(Some(text.to_owned()))),
            _ => Err(format!("must be {}, or off", Forwards::TARGET_FORM)),
        }
    }
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Set what the member could set; later applies leave it alone
    Set {
        /// The member's extension
        extension: Extension,
        /// The member's tenant, where the extension exists in several
        #[arg(long)]
        tenant: Option<Name>,
        #[command(flatten)]
        choices: MemberChoices,
    },
}

/// All of `main`: reads the command line and does what it says. `run` is the daemon; it is called
/// with logging started and returns when the daemon has stopped.
pub fn main(run: impl FnOnce(ControlConfig) -> anyhow::Result<()>) -> ExitCode {
    let run = |config: ControlConfig| {
        let _log = logging::init(&config.node)?;
        run(config)
    };
    ExitCode::from(execute(
        std::env::args_os(),
        &mut io::stdout(),
        &mut io::stderr(),
        run,
    ))
}

/// Gives the exit code.
fn execute(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
    run: impl FnOnce(ControlConfig) -> anyhow::Result<()>,
) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // --help and --version come here too; they go to standard output.
            // There is nobody left to tell of a closed terminal.
            if error.use_stderr() {
                let _ = write!(err, "{error}");
                return 2;
            }
            let _ = write!(out, "{error}");
            return 0;
        }
    };
    let Err(error) = dispatch(&arguments, out, run).and_then(|()| Ok(out.flush()?)) else {
        return 0;
    };
    // `… | head` has seen enough.
    if is_broken_pipe(&error) {
        return 0;
    }
    // Each line of what is wrong with a file names the file itself.
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        let _ = writeln!(err, "{error}");
        return 2;
    }
    let _ = writeln!(err, "trunkline-control: {error:#}");
    1
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = match error.downcast_ref::<serde_json::Error>() {
        Some(error) => error.io_error_kind(),
        None => error.downcast_ref::<io::Error>().map(io::Error::kind),
    };
    kind == Some(io::ErrorKind::BrokenPipe)
}

fn dispatch(
    arguments: &Arguments,
    out: &mut dyn Write,
    run: impl FnOnce(ControlConfig) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if let Some(Command::ConfigReference) = arguments.command {
        return Ok(out.write_all(ControlConfig::reference().as_bytes())?);
    }
    let config = ControlConfig::load(&arguments.config)?;
    if arguments.check_config {
        return Ok(writeln!(out, "{}: ok", arguments.config.display())?);
    }
    match &arguments.command {
        None => run(config),
        Some(Command::Apply {
            site,
            dry_run,
            prune,
            json,
        }) => {
            let options = crate::store::ApplyOptions {
                dry_run: *dry_run,
                prune: *prune,
            };
            commands::apply(&config, site, options, *json, out)
        }
        Some(Command::Status { json }) => commands::status(&config, *json, out),
        Some(Command::Calls { limit, json }) => commands::calls(&config, *limit, *json, out),
        Some(Command::Call { id, command, json }) => call::run(&config, id, command, *json, out),
        Some(Command::Trace { id, form }) => trace::run(&config, id.clone(), form, out),
        Some(Command::Conferences { json }) => conference::list(&config, *json, out),
        Some(Command::Conference {
            name,
            tenant,
            command,
            json,
        }) => conference::run(&config, (tenant.as_ref(), name), command, *json, out),
        Some(Command::Recordings { limit, since, json }) => {
            let limit = limit.unwrap_or(records_shown(*json));
            commands::recordings(&config, limit, *since, *json, out)
        }
        Some(Command::Cdr { limit, since, json }) => {
            let limit = limit.unwrap_or(records_shown(*json));
            commands::records(&config, limit, *since, *json, out)
        }
        Some(Command::Members { json }) => commands::members(&config, *json, out),
        Some(Command::Dids { json }) => commands::dids(&config, *json, out),
        Some(Command::Trunks { json }) => trunks::list(&config, *json, out),
        Some(Command::Member {
            command:
                MemberCommand::Set {
                    extension,
                    tenant,
                    choices,
                },
        }) => {
            let (availability, forwards) = (choices.availability, choices.forwards());
            let member = (tenant.as_ref(), extension);
            commands::set_member(&config, member, availability, forwards, out)
        }
        Some(Command::Reload) => commands::reload(&config, out),
        Some(Command::Resolve { uri, json }) => commands::resolve(&config, uri, *json, out),
        Some(Command::ConfigReference) => Ok(()),
    }
}

/// How many records are listed when nobody says.
const fn records_shown(json: bool) -> u32 {
    if json { RECORDS_PRINTED } else { RECORDS_SHOWN }
}
