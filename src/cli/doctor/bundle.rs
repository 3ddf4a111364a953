//! The CA bundles of the dstack server's process: which one Python's `requests` takes, what is in it as OpenSSL finds
//! it, what it costs, and what it does to the cloud clients in the same process.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;

use super::environment::Environment;
use super::report::Report;
use crate::certs::{CertsError, trust};

const CHECK: &str = "bundle";
const AWS: &str = "aws-bundle";
/// A file of more certificates than this is felt: each takes some 0.14 ms of every call.
const FEW: usize = 20;
/// Neither requests nor boto3 knows it.
const HOME: &str = "write the whole path: `~` is something that only shells replace";
/// Fewer public CAs than this are no public bundle.
const PUBLIC: usize = 20;

/// What the dstack server trusts when it calls its plugin service.
pub struct Bundle {
    /// As messages call it.
    pub name: String,
    pub certificates: Vec<CertificateDer<'static>>,
}

/// How a bundle is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    File,
    /// OpenSSL's hashed directory.
    Directory,
}

/// A bundle that was read.
struct Held {
    form: Form,
    certificates: Vec<CertificateDer<'static>>,
    /// Files of a directory in which OpenSSL finds nothing.
    lost: usize,
}

/// Looks at the bundle by which TLS servers are verified. Nothing where none can be.
pub fn check(environment: &Environment, tls: bool, report: &mut Report) -> Option<Bundle> {
    let variables = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
    let set = |name: &'static str| environment.get(name).map(|value| (name, value));
    let Some((variable, value)) = variables.into_iter().find_map(set) else {
        return Some(unset(environment, tls, report));
    };
    let path = PathBuf::from(value);
    let name = format!("{variable}={value}");
    let held = match read(&environment.place(&path)) {
        Ok(held) => held,
        Err(why) if path.starts_with("~") => {
            report.fail(CHECK, format!("{name}: {why}"), HOME);
            return None;
        }
        Err(why) => {
            let mend = "name the hashed directory that `dstack-admission serve` prints, or make one with \
                        `dstack-admission certs bundle`";
            report.fail(CHECK, format!("{name}: {why}"), mend);
            return None;
        }
    };
    let count = held.certificates.len();
    if held.lost > 0 {
        let message = format!("{name}: OpenSSL finds nothing in {} files", held.lost);
        let mend = "files are found as HASH.NUMBER: run `openssl rehash` on it, or `dstack-admission certs bundle`";
        report.warn(CHECK, message, mend);
    } else if !holds_public_roots(&held.certificates) {
        let message =
            format!("{name} holds no public CAs ({count} certificates), and replaces them");
        let mend = "add the public CAs, which the cloud clients of the dstack server need: `dstack-admission certs \
                    bundle` merges them";
        report.warn(CHECK, message, mend);
    } else if held.form == Form::File && count > FEW {
        let cost = count * 14 / 100;
        let message = format!(
            "{name} is one file of {count} certificates, which every apply loads anew: some {cost} ms"
        );
        let mend = "name a hashed directory (`dstack-admission certs bundle` makes one), and the file in AWS_CA_BUNDLE";
        report.warn(CHECK, message, mend);
    } else {
        report.ok(CHECK, format!("{name}, {count} certificates"));
    }
    check_aws(environment, &name, held.form, report);
    Some(Bundle {
        name,
        certificates: held.certificates,
    })
}

/// Without a variable, `requests` trusts its own public CAs.
fn unset(environment: &Environment, tls: bool, report: &mut Report) -> Bundle {
    let ignored = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
    let ignored = ignored
        .into_iter()
        .find(|name| environment.get(name).is_some());
    let message = "REQUESTS_CA_BUNDLE is not set, so only the public CAs are trusted";
    match ignored {
        Some(name) => {
            let mend = format!("set REQUESTS_CA_BUNDLE to what {name} names: requests does not look at {name}");
            report.warn(CHECK, message, mend);
        }
        None if tls => report.warn(
            CHECK,
            message,
            "set REQUESTS_CA_BUNDLE as `dstack-admission serve` prints it, unless a public CA signed the certificate",
        ),
        None => report.ok(CHECK, message),
    }
    Bundle {
        name: "the public CAs".to_owned(),
        certificates: trust::public_roots().collect(),
    }
}

/// boto3 obeys `AWS_CA_BUNDLE` first, then the same variables as `requests`, and takes a file only.
fn check_aws(environment: &Environment, other: &str, form: Form, report: &mut Report) {
    let mend = "set AWS_CA_BUNDLE to a file of the public CAs and yours, as `dstack-admission serve` prints it";
    let Some(value) = environment.get("AWS_CA_BUNDLE") else {
        if form == Form::Directory {
            let message =
                format!("AWS_CA_BUNDLE is not set, and boto3 cannot read the directory {other}");
            report.warn(AWS, message, mend);
        }
        return;
    };
    let path = PathBuf::from(value);
    let name = format!("AWS_CA_BUNDLE={value}");
    match read(&environment.place(&path)) {
        Err(why) if path.starts_with("~") => report.fail(AWS, format!("{name}: {why}"), HOME),
        Err(why) => report.fail(AWS, format!("{name}: {why}"), mend),
        Ok(held) if held.form == Form::Directory => {
            report.fail(
                AWS,
                format!("{name} is a directory, which boto3 cannot read"),
                mend,
            );
        }
        Ok(held) if !holds_public_roots(&held.certificates) => {
            report.warn(
                AWS,
                format!("{name} holds no public CAs, so AWS is not trusted"),
                mend,
            );
        }
        Ok(held) => report.ok(
            AWS,
            format!("{name}, {} certificates", held.certificates.len()),
        ),
    }
}

/// Reads a bundle as OpenSSL does.
fn read(path: &Path) -> Result<Held, String> {
    let found = fs::metadata(path).map_err(|error| error.to_string())?;
    if !found.is_dir() {
        let certificates = trust::read_bundle(path).map_err(|error| match error {
            CertsError::Bundle { problem, .. } => format!("it {problem}"),
            CertsError::Io { why, .. } => why.to_string(),
            error => error.to_string(),
        })?;
        let form = Form::File;
        return Ok(Held {
            form,
            certificates,
            lost: 0,
        });
    }
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(path).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !entry.path().is_dir() {
            files.insert(name, entry.path());
        }
    }
    let mut certificates = Vec::new();
    let mut lost = 0;
    // A link's target beside it is no loss.
    let linked = |path: &PathBuf| fs::read_link(path).ok()?.file_name().map(ToOwned::to_owned);
    let targets: HashSet<_> = files.values().filter_map(linked).collect();
    for (name, file) in &files {
        let found = looked_up(name, file, &files);
        if found.is_empty() && !targets.contains(file.file_name().unwrap_or_default()) {
            lost += 1;
        }
        certificates.extend(found);
    }
    match certificates.is_empty() {
        true => Err("there is no certificate in it that OpenSSL finds".to_owned()),
        false => Ok(Held {
            form: Form::Directory,
            certificates,
            lost,
        }),
    }
}

/// The certificates of a file that OpenSSL comes upon: it looks for `HASH.0`, `HASH.1` and so on until one is missing,
/// `HASH` being that of the subject it wants.
fn looked_up(
    name: &str,
    file: &Path,
    files: &BTreeMap<String, PathBuf>,
) -> Vec<CertificateDer<'static>> {
    let number = name.split_once('.').and_then(|(hash, number)| {
        let number = number.parse::<u32>().ok()?;
        Some((u32::from_str_radix(hash, 16).ok()?, hash, number))
    });
    let Some((hash, digits, number)) = number else {
        return Vec::new();
    };
    let reached = (0..number).all(|below| files.contains_key(&format!("{digits}.{below}")));
    if digits.len() != 8 || !reached {
        return Vec::new();
    }
    let held = trust::read_bundle(file).unwrap_or_default();
    let wanted = |one: &CertificateDer<'_>| trust::subject_hash(one).is_ok_and(|own| own == hash);
    held.into_iter().filter(wanted).collect()
}

fn holds_public_roots(certificates: &[CertificateDer<'_>]) -> bool {
    let public: HashSet<_> = trust::public_roots().collect();
    let held = certificates.iter().filter(|one| public.contains(*one));
    held.count() >= PUBLIC
}
