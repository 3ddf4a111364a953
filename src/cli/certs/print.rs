//! Certificates as people and programs read them.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::super::Output;
use super::{concern, warn};
use crate::certs::describe::{Description, describe};
use crate::certs::trust;

const DAY: u64 = 24 * 60 * 60;

/// Shows every certificate of these PEM files, and says on standard error which should not be relied on.
pub fn show(files: &[PathBuf], output: Output, now: SystemTime) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for file in files {
        for certificate in trust::read_bundle(file)? {
            // What is no X.509 is refused on reading.
            found.extend(describe(&certificate).map(|described| (file, described)));
        }
    }
    let concerns = found
        .iter()
        .filter_map(|(file, one)| concern(file, one, now));
    warn(&concerns.collect::<Vec<_>>())?;
    let mut out = io::stdout().lock();
    match output {
        Output::Json => {
            let all: Vec<_> = found.iter().map(|(file, one)| as_json(file, one)).collect();
            writeln!(out, "{:#}", Value::Array(all))?;
        }
        Output::Text => {
            for (index, (file, one)) in found.iter().enumerate() {
                let blank = if index == 0 { "" } else { "\n" };
                write!(out, "{blank}{}\n{}", file.display(), text(one, now))?;
            }
        }
    }
    Ok(())
}

fn text(one: &Description, now: SystemTime) -> String {
    let date = humantime::format_rfc3339_seconds;
    let left = match one.not_after.duration_since(now) {
        _ if now < one.not_before => "not valid yet".to_owned(),
        Ok(left) => format!("{} days left", left.as_secs() / DAY),
        Err(_) => "expired".to_owned(),
    };
    let (from, until) = (date(one.not_before), date(one.not_after));
    let issuer = match one.issuer == one.subject {
        true => "itself",
        false => &one.issuer,
    };
    let usage = one.key_usage.iter().copied();
    let extended = one.extended_key_usage.iter().map(String::as_str);
    let usage: Vec<_> = usage.chain(extended).collect();
    let strict = match one.not_strict.as_slice() {
        [] => "yes".to_owned(),
        reasons => format!(
            "no (Python 3.13 and later refuse it): {}",
            reasons.join(", ")
        ),
    };
    let rows = [
        ("subject", one.subject.clone()),
        ("issuer", issuer.to_owned()),
        ("names", one.names.join(", ")),
        ("valid", format!("{from} to {until}, {left}")),
        ("CA", if one.is_ca { "yes" } else { "no" }.to_owned()),
        ("usage", usage.join(", ")),
        ("strict", strict),
        ("serial", one.serial.clone()),
        ("SHA-256", one.fingerprint.clone()),
    ];
    let mut text = String::new();
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "  {name:<8} {value}");
    }
    text
}

fn as_json(file: &Path, one: &Description) -> Value {
    let date = |moment| humantime::format_rfc3339_seconds(moment).to_string();
    json!({
        "file": file,
        "subject": one.subject,
        "issuer": one.issuer,
        "names": one.names,
        "notBefore": date(one.not_before),
        "notAfter": date(one.not_after),
        "ca": one.is_ca,
        "keyUsage": one.key_usage,
        "extendedKeyUsage": one.extended_key_usage,
        "serial": one.serial,
        "fingerprintSha256": one.fingerprint,
        "notStrict": one.not_strict,
    })
}
