//! Certificates: loading, choosing, checking, and replacing them while calls go on.
//!
//! A [`TlsContext`] is what one reading of the files gave, and never changes. [`TlsKeeper`] reads
//! them again on request: handshakes from then on use the new one, connections that stand keep
//! what they have. A reading that fails changes nothing.
//!
//! RFC 5922 (whose certificate it must be), RFC 3261 §26.3.1. Left out: revocation lists, and OCSP
//! stapling, which SIP peers do not ask for.

mod keeper;
mod verifier;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use trunkline_sip::TransportKind;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::{KeyPairFiles, TlsFiles, VerifyClients};
pub use keeper::{CertificateStatus, TlsKeeper, TlsStatus};
use verifier::SipServerVerifier;

/// Longest PEM file, bytes. The system's authorities take 220 KiB.
const FILE_SIZE_MAX: u64 = 4 << 20;

/// Why the files give no [`TlsContext`].
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{path}: {problem}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The library takes none of it.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

impl TlsError {
    fn content(path: &Path, problem: impl fmt::Display) -> Self {
        Self::Content {
            path: path.to_owned(),
            problem: problem.to_string(),
        }
    }
}

/// A certificate that is shown to peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The file it came from.
    pub file: PathBuf,
    /// Names it is for, in lower case; `*.example.com` stands for one label.
    pub names: Vec<String>,
    /// First second of its life, since the Unix epoch.
    pub not_before_unix_secs: i64,
    /// Last second of its life, since the Unix epoch.
    pub not_after_unix_secs: i64,
}

/// What one reading of the files gave.
pub struct TlsContext {
    server: Arc<ServerConfig>,
    /// Browsers are never asked for a certificate.
    web_server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    certificates: Vec<CertificateInfo>,
}

impl fmt::Debug for TlsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsContext")
            .field("certificates", &self.certificates)
            .finish_non_exhaustive()
    }
}

impl TlsContext {
    /// Reads the files.
    ///
    /// # Errors
    /// The first file that is wrong, with what is wrong with it.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut pairs = Vec::with_capacity(files.pairs.len());
        for pair in &files.pairs {
            pairs.push(load_pair(pair, &provider)?);
        }
        let certificates = pairs.iter().map(|pair| pair.info.clone()).collect();
        let first = pairs.first().map(|pair| Arc::clone(&pair.key));
        let chooser = Arc::new(CertificateChooser(pairs));

        let client_verifier = match (&files.client_ca_file, files.verify_clients) {
            (None, _) | (_, VerifyClients::Off) => Arc::new(NoClientAuth),
            (Some(file), verify) => {
                let roots = Arc::new(load_roots(file)?);
                let provider = Arc::clone(&provider);
                let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let builder = match verify {
                    VerifyClients::Optional => builder.allow_unauthenticated(),
                    _ => builder,
                };
                builder
                    .build()
                    .map_err(|error| TlsError::content(file, error))?
            }
        };
        let server = |verifier| -> Result<Arc<ServerConfig>, TlsError> {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()?
                .with_client_cert_verifier(verifier);
            let chooser = Arc::clone(&chooser);
            Ok(Arc::new(builder.with_cert_resolver(chooser)))
        };

        let roots = match load_roots(&files.ca_file) {
            Ok(roots) => roots,
            // Who only accepts connections need not have it.
            Err(error) => {
                tracing::warn!(%error, "no SIP server can be connected to over TLS");
                RootCertStore::empty()
            }
        };
        let verifier = Arc::new(SipServerVerifier::new(roots, &provider));
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        // A peer that asks who we are is shown the first certificate.
        let client = match first {
            Some(key) => client.with_client_cert_resolver(Arc::new(OwnCertificate(key))),
            None => client.with_no_client_auth(),
        };
        Ok(Self {
            server: server(client_verifier)?,
            web_server: server(Arc::new(NoClientAuth))?,
            client: Arc::new(client),
            certificates,
        })
    }

    /// For connections that are accepted by a socket of `kind`.
    pub(super) fn server(&self, kind: TransportKind) -> Arc<ServerConfig> {
        Arc::clone(if kind.is_web() {
            &self.web_server
        } else {
            &self.server
        })
    }

    /// For connections that are opened.
    pub(super) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// The certificates that peers are shown, in the order of the configuration.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateInfo] {
        &self.certificates
    }

    /// The first certificate that is not of this time, and why.
    #[must_use]
    pub fn untimely(&self, unix_secs: i64) -> Option<String> {
        self.certificates.iter().find_map(|certificate| {
            let file = certificate.file.display();
            if certificate.not_after_unix_secs < unix_secs {
                Some(format!("{file}: the certificate has expired"))
            } else if certificate.not_before_unix_secs > unix_secs {
                Some(format!("{file}: the certificate is not valid yet"))
            } else {
                None
            }
        })
    }
}

/// A certificate with its key.
#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    info: CertificateInfo,
}

fn load_pair(files: &KeyPairFiles, provider: &CryptoProvider) -> Result<Pair, TlsError> {
    let path = &files.certificate_file;
    let chain = load_certificates(path)?;
    let info = describe(path, &chain[0])?;
    let key = read(&files.key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| TlsError::content(&files.key_file, format!("no private key: {error}")))?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        let problem = match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("not the key of the certificate in {}", path.display())
            }
            other => other.to_string(),
        };
        TlsError::content(&files.key_file, problem)
    })?;
    Ok(Pair {
        key: Arc::new(certified),
        info,
    })
}

/// At least one certificate.
fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::content(path, error))?;
    if certificates.is_empty() {
        return Err(TlsError::content(path, "no certificate in PEM form"));
    }
    Ok(certificates)
}

/// Authorities. Those which cannot be used are passed over, as in any system's collection.
fn load_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (used, _) = roots.add_parsable_certificates(load_certificates(path)?);
    if used == 0 {
        return Err(TlsError::content(path, "no usable authority"));
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > FILE_SIZE_MAX {
        return Err(TlsError::content(path, "too long for a PEM file"));
    }
    std::fs::read(path).map_err(failed)
}

fn describe(path: &Path, certificate: &CertificateDer<'_>) -> Result<CertificateInfo, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| TlsError::content(path, format!("no certificate: {error}")))?;
    let names = alternative_names(&parsed, |name| match name {
        GeneralName::DNSName(name) => Some((*name).to_ascii_lowercase()),
        _ => None,
    });
    Ok(CertificateInfo {
        file: path.to_owned(),
        names,
        not_before_unix_secs: parsed.validity().not_before.timestamp(),
        not_after_unix_secs: parsed.validity().not_after.timestamp(),
    })
}

/// What `take` makes of each subjectAltName.
fn alternative_names<T>(
    certificate: &X509Certificate<'_>,
    take: impl Fn(&GeneralName<'_>) -> Option<T>,
) -> Vec<T> {
    match certificate.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(take).collect(),
        Ok(None) | Err(_) => Vec::new(),
    }
}

/// Shows the certificate for the name that a peer asks for (RFC 6066 §3), else the first: a
/// device that asks for an address must be served, too.
#[derive(Debug)]
struct CertificateChooser(Vec<Pair>);

impl CertificateChooser {
    fn choose(&self, name: Option<&str>) -> Option<&Pair> {
        let asked = name.map(str::to_ascii_lowercase);
        let fitting = asked.and_then(|asked| {
            let is_it = |pair: &&Pair| pair.info.names.iter().any(|name| stands_for(name, &asked));
            self.0.iter().find(is_it)
        });
        fitting.or(self.0.first())
    }
}

impl ResolvesServerCert for CertificateChooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pair = self.choose(hello.server_name())?;
        Some(Arc::clone(&pair.key))
    }
}

/// RFC 6125 §6.4.3: a star is the whole first label.
fn stands_for(name: &str, asked: &str) -> bool {
    match (name.strip_prefix("*."), asked.split_once('.')) {
        (Some(parent), Some((_, rest))) => parent == rest,
        _ => name == asked,
    }
}

/// Shown to servers that ask.
#[derive(Debug)]
struct OwnCertificate(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for OwnCertificate {
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
