//! Whether a server is the SIP domain that it should be: RFC 5922 §7.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::alternative_names;

/// Checks the chain as the web does, and the name as SIP does: a certificate with `sip:` URIs
/// names its domains by them alone, any other by its DNS names (§7.1). Wildcards count although
/// §7.2 forbids them: carriers use them, and the authorities that sign them check the whole domain.
#[derive(Debug)]
pub(super) struct SipServerVerifier {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl SipServerVerifier {
    pub(super) fn new(roots: RootCertStore, provider: &CryptoProvider) -> Self {
        Self {
            roots,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for SipServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        let domains = sip_domains(end_entity);
        match server_name {
            ServerName::DnsName(name) if !domains.is_empty() => {
                let is_named = |domain: &String| domain.eq_ignore_ascii_case(name.as_ref());
                if !domains.iter().any(is_named) {
                    return Err(CertificateError::NotValidForName.into());
                }
            }
            _ => verify_server_name(&certificate, server_name)?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Domains of the `sip:` URIs among the alternative names. One with a user part names a person and
/// not a domain.
fn sip_domains(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    alternative_names(&parsed, |name| match name {
        GeneralName::URI(uri) => {
            let (scheme, domain) = uri.split_once(':')?;
            let is_domain = !domain.is_empty() && !domain.contains(['@', ';', '?', ':']);
            (scheme.eq_ignore_ascii_case("sip") && is_domain).then(|| domain.to_owned())
        }
        _ => None,
    })
}
