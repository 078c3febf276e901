//! Certificates of a test's own authority, as files.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, date_time_ymd,
};

/// Signs certificates. Nobody but the test trusts it.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM of its own certificate.
    pub file: PathBuf,
}

/// The files of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// PEM.
    pub certificate_file: PathBuf,
    /// PEM.
    pub key_file: PathBuf,
}

impl Authority {
    /// A new one; its certificate is `<name>-ca.pem` in `dir`.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let file = dir.join(format!("{name}-ca.pem"));
        std::fs::write(&file, params.self_signed(&key)?.pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            file,
        })
    }

    /// A certificate for `names`: host names, addresses, or URIs such as `sip:example.com`; it and
    /// its key are `<stem>.pem` and `<stem>.key` in `dir`, replaced if they are there.
    ///
    /// # Errors
    /// The directory cannot be written to, or a name is none.
    pub fn issue(&self, dir: &Path, stem: &str, names: &[&str]) -> Result<Certificate> {
        self.issue_until(dir, stem, names, 2090)
    }

    /// The same, valid until the first day of `year`.
    ///
    /// # Errors
    /// As above.
    pub fn issue_until(
        &self,
        dir: &Path,
        stem: &str,
        names: &[&str],
        year: i32,
    ) -> Result<Certificate> {
        let (uris, hosts): (Vec<&str>, Vec<&str>) =
            names.iter().partition(|name| name.starts_with("sip:"));
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(hosts)?;
        for uri in uris {
            params
                .subject_alt_names
                .push(SanType::URI(uri.to_owned().try_into()?));
        }
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = Certificate {
            certificate_file: dir.join(format!("{stem}.pem")),
            key_file: dir.join(format!("{stem}.key")),
        };
        let signed = params.signed_by(&key, &self.issuer)?;
        std::fs::write(&certificate.certificate_file, signed.pem())?;
        std::fs::write(&certificate.key_file, key.serialize_pem())?;
        Ok(certificate)
    }
}
