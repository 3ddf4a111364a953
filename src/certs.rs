//! Made certificates: what a server without configured TLS needs, kept under its state directory.
//!
//! [`ensure`] makes a CA, a server certificate signed by it, and the trust that the dstack server
//! is given: the public roots and the CA, once as an OpenSSL hashed directory and once as a file.
//! It keeps what is there and still good, and renews the rest early enough that old and new
//! overlap. It reads no clock, so a test can walk through years.
//!
//! ```text
//! stateDir/tls/ca-1.pem      a CA, certificate and key in one file; its successor is ca-2.pem
//! stateDir/tls/server.pem    the server's certificate and key in one file
//! stateDir/ca.pem            the certificates of our CAs, for whoever needs only those
//! stateDir/trust/HASH.0      public roots and our CAs, looked up by OpenSSL one by one
//! stateDir/trust.pem         the same in one file
//! ```
//!
//! A certificate shares a file with its key because one rename then replaces both: no reader and
//! no crash ever sees the one without the other. Files under `tls` are the owner's alone; all
//! others are readable by everyone, since the dstack server runs as another user. These modes are
//! set when a file is made; what an administrator or a volume sets afterwards is left alone.
//!
//! It never replaces a CA that it cannot read, never deletes a key, and never touches a file of a
//! name that is not its own.

mod authority;
pub mod describe;
mod files;
mod leaf;
pub mod trust;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use authority::Authority;
pub use leaf::Why;

/// What is there once [`ensure`] has run, and what it had to do. Every path is absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The server's certificate and its private key, both in this PEM file.
    pub server_file: PathBuf,
    /// The certificates of our CAs that have not expired, without keys.
    pub ca_file: PathBuf,
    /// Public roots and our CAs as an OpenSSL hashed directory.
    pub trust_dir: PathBuf,
    /// Public roots and our CAs as one PEM file.
    pub trust_file: PathBuf,
    /// When the server's certificate expires.
    pub leaf_not_after: SystemTime,
    /// When the CA that signed it expires.
    pub ca_not_after: SystemTime,
    /// The next moment at which [`ensure`] has something to do. Calling it earlier is harmless,
    /// and mends what was changed or deleted meanwhile.
    pub next_check: SystemTime,
    /// What was made or changed, in this order; empty if all was good. A merged file that was put
    /// right while the certificates in it stayed the same is not listed.
    pub done: Vec<Done>,
}

impl Made {
    /// The environment variables that make the dstack server trust our certificate, apart from
    /// the address of the service.
    ///
    /// `requests` loads its bundle anew for each call, which only the hashed directory makes
    /// cheap; boto3 cannot read a directory and obeys the second variable first.
    pub fn server_environment(&self) -> [(&'static str, &Path); 2] {
        [
            ("REQUESTS_CA_BUNDLE", &self.trust_dir),
            ("AWS_CA_BUNDLE", &self.trust_file),
        ]
    }
}

/// One thing that [`ensure`] did; its text fits a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// A CA was made, the first one or the successor of one that ends.
    Authority {
        file: PathBuf,
        not_after: SystemTime,
    },
    /// This many certificates were added to the trust and removed from it.
    Trust { added: usize, removed: usize },
    /// A server certificate was issued.
    Certificate { not_after: SystemTime, why: Why },
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = humantime::format_rfc3339_seconds;
        match self {
            Done::Authority { file, not_after } => {
                let (file, end) = (file.display(), date(*not_after));
                write!(f, "made a CA, valid until {end}: {file}")
            }
            Done::Trust { added, removed } => {
                write!(f, "changed the trust: {added} added, {removed} removed")
            }
            Done::Certificate { not_after, why } => {
                let end = date(*not_after);
                write!(f, "issued a certificate, valid until {end}: {why}")
            }
        }
    }
}

/// Why no certificates could be made. Each text names the file, or what to change.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error("cannot {action} {}: {why}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        /// Not the source: the text above has it already.
        why: io::Error,
    },
    #[error(
        "the CA in {} cannot be used: {problem}. Restore the file from a backup; or move it away \
         to have a new CA made, which breaks every client that has only the old trust",
        path.display()
    )]
    Authority {
        path: PathBuf,
        problem: &'static str,
    },
    #[error("no CA in {} is valid now", path.display())]
    NoAuthority { path: PathBuf },
    #[error("{} {problem}", path.display())]
    Bundle {
        path: PathBuf,
        problem: &'static str,
    },
    #[error("a certificate for the trust cannot be read: {0}")]
    Certificate(&'static str),
    #[error("a made certificate needs at least one name")]
    NoNames,
    #[error("cannot make a certificate: {0}")]
    Making(#[from] rcgen::Error),
}

/// Makes and renews what is missing or due at `now` under `state_dir`, for a server that clients
/// call by `names`. Several processes may do this at once: they wait for each other.
///
/// On a good state this reads and compares files only, which takes a few milliseconds.
///
/// # Errors
/// A file that cannot be read or written, a CA file that is broken, no names. Whatever was good
/// before stays in place.
pub fn ensure(
    state_dir: &Path,
    names: &[ServerName<'_>],
    now: SystemTime,
) -> Result<Made, CertsError> {
    let names = names.iter().map(leaf::san_text).collect();
    prepare(state_dir, names, now, Issue::WhenDue)
}

/// Issues a new server certificate for these names although the one at hand may still be good. All
/// else is as [`ensure`] does it.
///
/// # Errors
/// As [`ensure`].
pub fn renew(
    state_dir: &Path,
    names: &[ServerName<'_>],
    now: SystemTime,
) -> Result<Made, CertsError> {
    let names = names.iter().map(leaf::san_text).collect();
    prepare(state_dir, names, now, Issue::Now)
}

/// The names of the server certificate under `state_dir`, if there is one that has some.
///
/// # Errors
/// A file that cannot be read.
pub fn names(state_dir: &Path) -> Result<Option<Vec<String>>, CertsError> {
    let Some(held) = files::read(&state_dir.join("tls/server.pem"))? else {
        return Ok(None);
    };
    let certificate = CertificateDer::from_pem_slice(&held).ok();
    let described = certificate.as_ref().and_then(describe::describe);
    let names = described.map(|described| described.names);
    Ok(names.filter(|names| !names.is_empty()))
}

/// Whether a CA was made under `state_dir`.
///
/// # Errors
/// A directory that cannot be read, a CA file that is broken.
pub fn has_authority(state_dir: &Path) -> Result<bool, CertsError> {
    let tls = state_dir.join("tls");
    Ok(tls.is_dir() && !authority::load_all(&tls)?.is_empty())
}

/// Moves every CA under `state_dir` away, so that the next [`ensure`] makes one, whoever trusts only
/// the old ones notwithstanding. Returns where they are now.
///
/// # Errors
/// A directory that cannot be read or written.
pub fn set_aside(state_dir: &Path, now: SystemTime) -> Result<Vec<PathBuf>, CertsError> {
    let tls = state_dir.join("tls");
    if !tls.is_dir() {
        return Ok(Vec::new());
    }
    let _lock = files::lock(&tls)?;
    authority::set_aside(&tls, now)
}

/// When a server certificate is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Issue {
    WhenDue,
    Now,
}

fn prepare(
    state_dir: &Path,
    names: BTreeSet<String>,
    now: SystemTime,
    issue: Issue,
) -> Result<Made, CertsError> {
    let state_dir = std::path::absolute(state_dir).map_err(files::failed("find", state_dir))?;
    let tls = state_dir.join("tls");
    let server_file = tls.join("server.pem");
    let ca_file = state_dir.join("ca.pem");
    let trust_dir = state_dir.join("trust");
    let trust_file = state_dir.join("trust.pem");
    if names.is_empty() {
        return Err(CertsError::NoNames);
    }

    files::directory(&state_dir, files::PUBLIC_DIR)?;
    files::directory(&tls, files::PRIVATE_DIR)?;
    let _lock = files::lock(&tls)?;
    let mut done = Vec::new();

    let mut authorities = authority::load_all(&tls)?;
    if !authorities.iter().any(|authority| authority.is_fresh(now)) {
        let authority = Authority::make(&tls, authorities.last(), now)?;
        done.push(Done::Authority {
            file: authority.file.clone(),
            not_after: authority.not_after,
        });
        authorities.push(authority);
    }

    // The trust comes before the certificate: no client meets a certificate of an unknown CA.
    let ours: Vec<_> = authorities
        .iter()
        .filter(|authority| now < authority.not_after)
        .map(|authority| authority.certificate.clone())
        .collect();
    let ours_text: String = ours.iter().map(|ca| trust::pem(ca)).collect();
    files::update(&ca_file, ours_text.as_bytes(), files::PUBLIC)?;
    let all: Vec<_> = ours.into_iter().chain(trust::public_roots()).collect();
    let change = trust::write(&trust_dir, &trust_file, &all)?;
    if change != trust::Change::default() {
        let trust::Change { added, removed } = change;
        done.push(Done::Trust { added, removed });
    }

    let signer = authority::signer(&authorities, now)
        .ok_or_else(|| CertsError::NoAuthority { path: tls.clone() })?;
    let held = files::read(&server_file)?;
    let examined = leaf::examine(held.as_deref(), &names, signer, now);
    let examined = examined.and_then(|validity| match issue {
        Issue::WhenDue => Ok(validity),
        Issue::Now => Err(Why::Asked),
    });
    let validity = match examined {
        Ok(validity) => validity,
        Err(why) => {
            let (pem, validity) = leaf::issue(&names, signer, now)?;
            files::write(&server_file, pem.as_bytes(), files::PRIVATE)?;
            let not_after = validity.not_after;
            done.push(Done::Certificate { not_after, why });
            validity
        }
    };

    let renewal = validity.renewal();
    let next_check = authorities
        .iter()
        .flat_map(Authority::milestones)
        .filter(|moment| *moment > now)
        .fold(renewal, SystemTime::min);
    Ok(Made {
        leaf_not_after: validity.not_after,
        ca_not_after: signer.not_after,
        server_file,
        ca_file,
        trust_dir,
        trust_file,
        next_check,
        done,
    })
}

#[cfg(test)]
mod tests;
