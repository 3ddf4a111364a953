//! Files by which one end of a connection knows the other: secrets, certificates and keys. Every
//! error names its file.

pub mod outgoing;

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// How many bytes a file of any of these kinds may have: a bundle of all public CAs has a fraction.
const MOST: u64 = 4 << 20;

/// A secret: its file's text without the line's end.
///
/// # Errors
/// When the file cannot be read or is empty.
pub fn secret(file: &Path) -> Result<String, String> {
    let bytes = read(file).map_err(|e| in_file(file, e))?;
    let text = String::from_utf8(bytes).map_err(|_| in_file(file, "it is no text in UTF-8"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(in_file(file, "it is empty")),
        secret => Ok(secret.to_owned()),
    }
}

/// The PEM certificates of a file, at least one.
///
/// # Errors
/// When the file cannot be read or holds none.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(file).map_err(|e| in_file(file, e))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = read.map_err(|e| in_file(file, e))?;
    match certificates.is_empty() {
        true => Err(in_file(file, "no PEM certificate in it")),
        false => Ok(certificates),
    }
}

/// The PEM private key of a file.
///
/// # Errors
/// When the file cannot be read or holds none.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(file).map_err(|e| in_file(file, e))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| in_file(file, e))
}

/// Reads a file that is not large. A pipe that nobody writes to is not waited for.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(file)?;
    let mut bytes = Vec::new();
    opened.take(MOST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MOST {
        true => Err(io::Error::other("it is larger than 4 MiB")),
        false => Ok(bytes),
    }
}

/// The PEM certificates of a file as CAs to trust.
///
/// # Errors
/// When the file cannot be read or holds none that can be one.
pub fn roots(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|e| in_file(file, e))?;
    }
    Ok(roots)
}

/// What is wrong, after the name of the file it is wrong with.
pub fn in_file(file: &Path, why: impl fmt::Display) -> String {
    format!("{}: {why}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_names_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        let errors = [
            secret(&empty).unwrap_err(),
            certificates(&empty).unwrap_err(),
            private_key(&empty).unwrap_err(),
            roots(&directory.path().join("missing"))
                .map(drop)
                .unwrap_err(),
        ];
        for (error, name) in errors.iter().zip(["empty", "empty", "empty", "missing"]) {
            assert!(error.contains(&format!("/{name}: ")), "{error}");
        }
    }
}
