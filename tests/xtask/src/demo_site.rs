//! The demo's files under `target/demo`, and how `demo` finds what `run` started.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use trunkline_testkit::site::{Availability, Member, Node, Site, random_password};

use crate::workspace;

/// Longest path of a Unix socket that Linux takes (`sun_path` with its terminator is 108).
const SOCKET_PATH_LEN_MAX: usize = 107;

/// Source address of the demo's carrier.
pub(crate) const CARRIER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Two members for the reader's own softphones, and the phone that `demo` brings along.
const MEMBERS: [(&str, &str, &str); 3] = [
    ("anna", "101", "+15550100101"),
    ("ben", "102", "+15550100102"),
    (DEMO_PHONE, "103", "+15550100103"),
];

/// The member whose phone `demo` plays.
pub(crate) const DEMO_PHONE: &str = "demo";

/// What `run` wrote down for `demo`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Where SIP is served, UDP and TCP.
    pub(crate) sip: SocketAddr,
    /// Where `/readyz` is.
    pub(crate) http: SocketAddr,
    /// Process ids: edge, control.
    pub(crate) daemons: [u32; 2],
    /// The members.
    pub(crate) members: Vec<MemberEntry>,
}

/// One member, with the file that holds the password.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MemberEntry {
    /// SIP user.
    pub(crate) user: String,
    /// Extension.
    pub(crate) extension: String,
    /// DID.
    pub(crate) did: String,
    /// File with the password alone.
    pub(crate) password_file: PathBuf,
}

/// Everything under `target/demo`.
pub(crate) struct DemoDirectory(PathBuf);

impl DemoDirectory {
    /// `target/demo`, whether it exists or not.
    pub(crate) fn locate() -> Result<Self> {
        Ok(Self(workspace::target_dir()?.join("demo")))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("trunkline.toml")
    }

    pub(crate) fn credentials(&self) -> PathBuf {
        self.0.join("credentials.txt")
    }

    pub(crate) fn log(&self, daemon: &str) -> PathBuf {
        self.0.join(format!("{daemon}.log"))
    }

    fn running_file(&self) -> PathBuf {
        self.0.join("running.json")
    }

    /// Writes configuration, site and credentials. Passwords of an earlier run are kept, so
    /// that a softphone once set up goes on working.
    pub(crate) fn write(&self, sip: SocketAddr, http: SocketAddr, ports: &str) -> Result<Site> {
        let run_dir = self.run_dir();
        for directory in [&self.0, &run_dir, &self.0.join("state")] {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let node = Node {
            run_dir,
            state_dir: self.0.join("state"),
            log: "info".to_owned(),
            workers: 2,
            media_addresses: vec![sip.ip().into()],
            ports: ports.to_owned(),
            sip: vec![sip],
            ring_timeout_secs: 30,
            sip_more: String::new(),
            http,
            more: String::new(),
        };
        fs::write(self.config(), node.to_toml())?;

        let members = MEMBERS.map(|(user, extension, did)| Member {
            user: user.to_owned(),
            password: self.password(user),
            extension: extension.to_owned(),
            did: did.to_owned(),
            availability: Availability::Online,
            srtp: "off",
            more: String::new(),
            did_more: String::new(),
        });
        let site = Site {
            tenant: "demo".to_owned(),
            trunk_sources: vec![format!("{CARRIER}/32")],
            trunk_srtp: "off",
            trunk_media: None,
            tenant_media: None,
            tenant_more: String::new(),
            members: members.to_vec(),
            more: String::new(),
        };
        site.write(&self.0)?;
        self.write_credentials(sip, &site)?;
        Ok(site)
    }

    fn password(&self, user: &str) -> String {
        fs::read_to_string(self.password_file(user))
            .ok()
            .map(|text| text.trim().to_owned())
            .filter(|password| !password.is_empty())
            .unwrap_or_else(random_password)
    }

    /// As [`Site::write`] names it.
    fn password_file(&self, user: &str) -> PathBuf {
        self.0.join(format!("{user}.password"))
    }

    fn write_credentials(&self, sip: SocketAddr, site: &Site) -> Result<()> {
        let mut text = format!(
            "Server (registrar, domain) {}, port {}, UDP or TCP\n\n",
            sip.ip(),
            sip.port()
        );
        for member in &site.members {
            text.push_str(&format!(
                "user {:6} password {}   extension {}   DID {}\n",
                member.user, member.password, member.extension, member.did
            ));
        }
        trunkline_testkit::site::write_private(&self.credentials(), &text)
    }

    /// Sockets lie beside the rest unless the path is too long for a Unix socket.
    fn run_dir(&self) -> PathBuf {
        let beside = self.0.join("run");
        if beside.join("control.sock").as_os_str().len() <= SOCKET_PATH_LEN_MAX {
            beside
        } else {
            std::env::temp_dir().join("trunkline-demo-run")
        }
    }

    pub(crate) fn write_running(&self, running: &Running) -> Result<()> {
        fs::write(self.running_file(), serde_json::to_vec_pretty(running)?)?;
        Ok(())
    }

    pub(crate) fn remove_running(&self) {
        // It may never have been written.
        let _ = fs::remove_file(self.running_file());
    }

    pub(crate) fn read_running(&self) -> Option<Running> {
        let text = fs::read(self.running_file()).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(crate) fn entries(&self, site: &Site) -> Vec<MemberEntry> {
        site.members
            .iter()
            .map(|member| MemberEntry {
                user: member.user.clone(),
                extension: member.extension.clone(),
                did: member.did.clone(),
                password_file: self.password_file(&member.user),
            })
            .collect()
    }
}
