//! Configuration and site files for daemons under test.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// What goes into `trunkline.toml`.
#[derive(Debug, Clone)]
pub struct Node {
    /// `[node] run_dir`: sockets.
    pub run_dir: PathBuf,
    /// `[node] state_dir`: the store and the CDR spool.
    pub state_dir: PathBuf,
    /// `[node] log`.
    pub log: String,
    /// `[edge] workers`. System tests run with at least two.
    pub workers: u16,
    /// `[edge] media_addresses`.
    pub media_addresses: Vec<MediaAddress>,
    /// `[edge] ports`: `first-last`.
    pub ports: String,
    /// `[sip] listen`: addresses served over UDP and TCP.
    pub sip: Vec<SocketAddr>,
    /// `[sip] ring_timeout_secs`.
    pub ring_timeout_secs: u32,
    /// Further lines of `[sip]`.
    pub sip_more: String,
    /// `[http] listen`.
    pub http: SocketAddr,
    /// Whole sections more, as they are to stand in the file.
    pub more: String,
}

impl Node {
    /// The file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let listen: Vec<String> = self
            .sip
            .iter()
            .flat_map(|address| [format!("\"udp:{address}\""), format!("\"tcp:{address}\"")])
            .collect();
        let media: Vec<String> = self
            .media_addresses
            .iter()
            .map(MediaAddress::to_toml)
            .collect();
        format!(
            "[node]\nrun_dir = \"{}\"\nstate_dir = \"{}\"\nlog = \"{}\"\n\n\
             [edge]\nworkers = {}\nmedia_addresses = [{}]\nports = \"{}\"\n\n\
             [sip]\nlisten = [{}]\nring_timeout_secs = {}\n{}\n\
             [http]\nlisten = \"{}\"\n\n{}",
            self.run_dir.display(),
            self.state_dir.display(),
            self.log,
            self.workers,
            media.join(", "),
            self.ports,
            listen.join(", "),
            self.ring_timeout_secs,
            self.sip_more,
            self.http,
            self.more
        )
    }
}

/// One entry of `[edge] media_addresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaAddress {
    /// What is bound.
    pub address: IpAddr,
    /// What SDP names, where that is another.
    pub advertise: Option<IpAddr>,
    /// What the site file calls it.
    pub name: Option<&'static str>,
}

impl From<IpAddr> for MediaAddress {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            advertise: None,
            name: None,
        }
    }
}

impl MediaAddress {
    fn to_toml(&self) -> String {
        let mut keys = format!("address = \"{}\"", self.address);
        if let Some(advertise) = self.advertise {
            let _ = write!(keys, ", advertise = \"{advertise}\"");
        }
        if let Some(name) = self.name {
            let _ = write!(keys, ", name = \"{name}\"");
        }
        match (self.advertise, self.name) {
            (None, None) => format!("\"{}\"", self.address),
            _ => format!("{{ {keys} }}"),
        }
    }
}

/// What a member's site entry says about being reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// Takes calls.
    Online,
    /// Callers get 486.
    Busy,
    /// Callers get 480.
    Offline,
}

impl Availability {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Busy => "busy",
            Self::Offline => "offline",
        }
    }
}

/// A member with a DID of its own.
#[derive(Debug, Clone)]
pub struct Member {
    /// SIP user, and name of the password file.
    pub user: String,
    /// Password of the digest.
    pub password: String,
    /// Extension inside the tenant.
    pub extension: String,
    /// The DID that reaches the member.
    pub did: String,
    /// As the site file says it.
    pub availability: Availability,
    /// `srtp` of the site file.
    pub srtp: &'static str,
    /// Further lines of its section.
    pub more: String,
    /// Further lines of its DID's section.
    pub did_more: String,
}

impl Member {
    /// Member `index` of a test site, 0 … 9999: user `member7`, extension `1007`, DID
    /// `+15550100007`, a random password.
    #[must_use]
    pub fn numbered(index: u16) -> Self {
        Self {
            user: format!("member{index}"),
            password: random_password(),
            extension: format!("{}", 1000 + u32::from(index)),
            did: format!("+1555010{index:04}"),
            availability: Availability::Online,
            srtp: "off",
            more: String::new(),
            did_more: String::new(),
        }
    }

    /// The same with further lines in the section of its DID.
    #[must_use]
    pub fn with_did_more(mut self, lines: &str) -> Self {
        self.did_more = lines.to_owned();
        self
    }

    /// The same with further lines in its section of the site file.
    #[must_use]
    pub fn with_more(mut self, lines: &str) -> Self {
        self.more = lines.to_owned();
        self
    }

    /// The same with another availability.
    #[must_use]
    pub fn with_availability(mut self, availability: Availability) -> Self {
        self.availability = availability;
        self
    }

    /// The same with another `srtp`.
    #[must_use]
    pub fn with_srtp(mut self, srtp: &'static str) -> Self {
        self.srtp = srtp;
        self
    }
}

/// One tenant with one trunk and its members.
#[derive(Debug, Clone)]
pub struct Site {
    /// Name of the tenant.
    pub tenant: String,
    /// Networks the trunk's calls come from.
    pub trunk_sources: Vec<String>,
    /// `srtp` of the trunk.
    pub trunk_srtp: &'static str,
    /// `media` of the trunk, where it has one.
    pub trunk_media: Option<&'static str>,
    /// `media` of the tenant, where it has one.
    pub tenant_media: Option<&'static str>,
    /// Further lines of the tenant's section.
    pub tenant_more: String,
    /// Its members, each with a DID.
    pub members: Vec<Member>,
    /// Whole sections more, as they are to stand in the file.
    pub more: String,
}

impl Site {
    /// The test site: a trunk from 127.0.0.2 and these members.
    #[must_use]
    pub fn with_members(members: Vec<Member>) -> Self {
        Self {
            tenant: "test".to_owned(),
            trunk_sources: vec!["127.0.0.2/32".to_owned()],
            trunk_srtp: "off",
            trunk_media: None,
            tenant_media: None,
            tenant_more: String::new(),
            members,
            more: String::new(),
        }
    }

    /// Writes `site.toml` and one password file per member (mode 0600) into `directory`, and
    /// returns the path of the site file.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        fs::create_dir_all(directory)?;
        let sources: Vec<String> = self
            .trunk_sources
            .iter()
            .map(|network| format!("\"{network}\""))
            .collect();
        let tenant = &self.tenant;
        let media = |name: Option<_>| name.map_or(String::new(), |n| format!("media = \"{n}\"\n"));
        let mut site = format!(
            "[[tenant]]\nname = \"{tenant}\"\n{}{}\n\
             [[trunk]]\nname = \"carrier\"\ntenant = \"{tenant}\"\nsources = [{}]\n\
             srtp = \"{}\"\n{}",
            media(self.tenant_media),
            self.tenant_more,
            sources.join(", "),
            self.trunk_srtp,
            media(self.trunk_media),
        );
        for member in &self.members {
            let secret = directory.join(format!("{}.password", member.user));
            write_private(&secret, &member.password)?;
            let _ = write!(
                site,
                "\n[[member]]\ntenant = \"{tenant}\"\nextension = \"{}\"\nname = \"{}\"\n\
                 sip_user = \"{}\"\npassword_file = \"{}\"\navailability = \"{}\"\n\
                 srtp = \"{}\"\n{}\n\
                 \n[[did]]\nnumber = \"{}\"\ntenant = \"{tenant}\"\nmember = \"{}\"\n{}",
                member.extension,
                member.user,
                member.user,
                secret.display(),
                member.availability.as_str(),
                member.srtp,
                member.more,
                member.did,
                member.extension,
                member.did_more,
            );
        }
        site.push_str(&self.more);
        let path = directory.join("site.toml");
        fs::write(&path, site).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(file, "{text}")?;
    Ok(())
}

/// 26 random letters and digits without look-alikes: 128 bits, and easy to type once.
#[must_use]
pub fn random_password() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut octets = [0u8; 26];
    getrandom::fill(&mut octets).expect("the kernel has entropy");
    octets
        .iter()
        .map(|octet| char::from(ALPHABET[usize::from(octet % 32)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn password_files_are_private_and_passwords_differ() {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::with_members(vec![Member::numbered(0), Member::numbered(1)]);
        site.write(directory.path()).unwrap();
        let file = directory.path().join("member1.password");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_to_string(file).unwrap().trim(),
            site.members[1].password
        );
        assert_ne!(site.members[0].password, site.members[1].password);
    }
}
