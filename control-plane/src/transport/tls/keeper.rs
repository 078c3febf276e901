//! Reading the files again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{TlsContext, TlsError};
use crate::config::TlsFiles;

/// Seconds before its end from which a certificate is warned of: a week to act in.
const EXPIRES_SOON_SECS: i64 = 7 * 86_400;

/// Certificates, for people to look at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TlsStatus {
    /// In the order of the configuration.
    pub certificates: Vec<CertificateStatus>,
    /// Why the last reading of the files was refused; `None` where it was not.
    pub reload_problem: Option<String>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The file it came from.
    pub file: String,
    /// Names it is for.
    pub names: Vec<String>,
    /// Last second of its life, since the Unix epoch.
    pub not_after_unix_secs: i64,
}

/// The one that reads the files, on a thread that may wait for a disk.
#[derive(Debug)]
pub struct TlsKeeper {
    /// `None` where no socket speaks TLS.
    files: Option<TlsFiles>,
    context: watch::Sender<Option<Arc<TlsContext>>>,
    problem: Mutex<Option<String>>,
}

impl TlsKeeper {
    /// Reads the files for the first time. A certificate that has expired is used and complained
    /// of: some service is better than none.
    ///
    /// # Errors
    /// The first file that is wrong.
    pub fn open(files: Option<TlsFiles>) -> Result<Self, TlsError> {
        let context = match &files {
            Some(files) => Some(Arc::new(TlsContext::load(files)?)),
            None => None,
        };
        if let Some(context) = &context {
            let now = unix_secs();
            if let Some(problem) = context.untimely(now) {
                tracing::error!(problem, "peers will refuse this certificate");
            } else if context.untimely(now + EXPIRES_SOON_SECS).is_some() {
                tracing::warn!("a SIP certificate expires within a week");
            }
        }
        Ok(Self {
            files,
            context: watch::Sender::new(context),
            problem: Mutex::new(None),
        })
    }

    /// The newest reading that was good.
    #[must_use]
    pub fn contexts(&self) -> watch::Receiver<Option<Arc<TlsContext>>> {
        self.context.subscribe()
    }

    /// Reads the files again. Handshakes from now on use what they hold. Returns how many
    /// certificates there are.
    ///
    /// # Errors
    /// What is wrong with them, expired certificates included. The old ones stay in use.
    pub fn reload(&self) -> Result<usize, String> {
        let Some(files) = &self.files else {
            return Ok(0);
        };
        let outcome = TlsContext::load(files)
            .map_err(|error| error.to_string())
            .and_then(|context| match context.untimely(unix_secs()) {
                None => Ok(context),
                Some(problem) => Err(problem),
            });
        let problem = outcome.as_ref().err().cloned();
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        match outcome {
            Ok(context) => {
                let count = context.certificates().len();
                tracing::info!(certificates = count, "SIP certificates were read again");
                self.context.send_replace(Some(Arc::new(context)));
                Ok(count)
            }
            Err(problem) => {
                tracing::error!(problem, "SIP certificates stay as they were");
                Err(problem)
            }
        }
    }

    /// `None` where no socket speaks TLS.
    #[must_use]
    pub fn status(&self) -> Option<TlsStatus> {
        let context = self.context.borrow().clone()?;
        let certificates = context.certificates().iter();
        Some(TlsStatus {
            certificates: certificates
                .map(|certificate| CertificateStatus {
                    file: certificate.file.display().to_string(),
                    names: certificate.names.clone(),
                    not_after_unix_secs: certificate.not_after_unix_secs,
                })
                .collect(),
            reload_problem: self
                .problem
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        })
    }
}

fn unix_secs() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| {
            i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
        })
}
