//! Trusted certificates in the two forms that OpenSSL loads: a hashed directory, whose files are
//! looked up by subject one at a time, and a merged PEM file.
//!
//! Both are refreshed in place, so the directory may itself be a mount shared with another
//! container, and without a moment at which a certificate that was and stays trusted is missing.
//! Never touches a file in the directory that is not named as OpenSSL names certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha1::{Digest, Sha1};
use x509_parser::asn1_rs::{Any, Sequence, SerializeError, Set, Tag, ToDer};
use x509_parser::x509::X509Name;

use super::{CertsError, authority, files};

/// How many certificates [`write`] added to the hashed directory and removed from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    pub added: usize,
    pub removed: usize,
}

/// The public CAs that Mozilla trusts for TLS servers, as of the build.
pub fn public_roots() -> impl Iterator<Item = CertificateDer<'static>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned()
}

/// All certificates of a PEM file, such as a company's own CAs, to be merged into a trust.
///
/// # Errors
/// A file that cannot be read, or that holds no certificate or a garbled one.
pub fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertsError> {
    let text = fs::read(path).map_err(files::failed("read", path))?;
    certificates_of(&text).map_err(|problem| CertsError::Bundle {
        path: path.to_owned(),
        problem,
    })
}

fn certificates_of(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    const DER_SEQUENCE: [u8; 2] = [0x30, 0x82];
    const UNREADABLE: &str = "holds no readable PEM certificate";
    if text.starts_with(&DER_SEQUENCE) {
        return Err("is DER, not PEM: `openssl x509 -inform der -in FILE` makes PEM of it");
    }
    // The parser passes over a certificate that begins so; OpenSSL refuses the file.
    let joined = b"----------BEGIN";
    if text.windows(joined.len()).any(|part| part == joined) {
        return Err("has one block that begins on the line where another ends: break that line");
    }
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certificates = certificates.map_err(|_| UNREADABLE)?;
    let readable = certificates
        .iter()
        .all(|one| authority::parse(one).is_some());
    (readable && !certificates.is_empty())
        .then_some(certificates)
        .ok_or(UNREADABLE)
}

/// Makes `dir` and `file` hold exactly these certificates, writing only what differs. What is
/// there twice counts once.
///
/// # Errors
/// A certificate that is no X.509, a file that cannot be read or written.
pub fn write(
    dir: &Path,
    file: &Path,
    certificates: &[CertificateDer<'_>],
) -> Result<Change, CertsError> {
    let mut merged = String::new();
    let mut wanted: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for certificate in certificates {
        let text = pem(certificate);
        let group = wanted.entry(subject_hash(certificate)?).or_default();
        if !group.contains(&text) {
            merged.push_str(&text);
            group.insert(text);
        }
    }

    files::directory(dir, files::PUBLIC_DIR)?;
    let _lock = files::lock(dir)?;
    let mut held = read_groups(dir)?;
    let mut change = Change::default();
    // All additions come before the first removal, and the file stands between the two.
    for (hash, wanted) in &wanted {
        let slots = held.entry(*hash).or_default();
        for text in wanted {
            if !slots.values().any(|held| held == text.as_bytes()) {
                let free = (0..).find(|number| !slots.contains_key(number));
                put(dir, *hash, free.unwrap_or_default(), text.as_bytes(), slots)?;
                change.added += 1;
            }
        }
    }
    files::update(file, merged.as_bytes(), files::PUBLIC)?;
    for (hash, mut slots) in held {
        change.removed += shrink(dir, hash, &mut slots, wanted.get(&hash))?;
    }
    if change != Change::default() {
        files::sync(dir)?;
    }
    Ok(change)
}

/// A certificate as PEM text, its lines 64 characters long.
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let body = STANDARD.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in body.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
    text
}

/// The hash by which OpenSSL finds a certificate in a directory, as `openssl x509 -hash` prints
/// it: the first four bytes, little endian, of the SHA-1 of the canonical subject.
///
/// # Errors
/// A certificate that is no X.509, or whose subject holds text in a broken encoding.
pub fn subject_hash(certificate: &CertificateDer<'_>) -> Result<u32, CertsError> {
    let x509 = authority::parse(certificate).ok_or(CertsError::Certificate("no X.509"))?;
    let broken = CertsError::Certificate("its subject holds text in a broken encoding");
    let name = canonical(x509.subject()).ok_or(broken)?;
    let [a, b, c, d, ..] = <[u8; 20]>::from(Sha1::digest(name));
    Ok(u32::from_le_bytes([a, b, c, d]))
}

type Slots = BTreeMap<u32, Vec<u8>>;

/// What the directory holds: the contents of the files `HASH.NUMBER`, by hash and number.
fn read_groups(dir: &Path) -> Result<BTreeMap<u32, Slots>, CertsError> {
    let mut groups: BTreeMap<u32, Slots> = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(files::failed("read", dir))? {
        let entry = entry.map_err(files::failed("read", dir))?;
        let name = entry.file_name();
        let parsed = name.to_str().and_then(|name| {
            let (hash, number) = name.split_once('.')?;
            let (hash, number) = (u32::from_str_radix(hash, 16).ok()?, number.parse().ok()?);
            (name == file_name(hash, number)).then_some((hash, number))
        });
        if let Some((hash, number)) = parsed {
            let path = entry.path();
            let content = fs::read(&path).map_err(files::failed("read", &path))?;
            groups.entry(hash).or_default().insert(number, content);
        }
    }
    Ok(groups)
}

/// Removes what is not wanted from one hash. OpenSSL stops looking at the first missing number,
/// so a number that must not stay or is missing first gets the last one's text, which then goes.
fn shrink(
    dir: &Path,
    hash: u32,
    slots: &mut Slots,
    wanted: Option<&BTreeSet<String>>,
) -> Result<usize, CertsError> {
    let is_wanted = |text: &[u8]| {
        let text = str::from_utf8(text).ok();
        wanted.is_some_and(|wanted| text.is_some_and(|text| wanted.contains(text)))
    };
    let mut removed = 0;
    while let Some((last, text)) = slots.pop_last() {
        let mut seen = BTreeSet::new();
        let mut stays = |text: &Vec<u8>| is_wanted(text) && seen.insert(text.clone());
        let hole = (0..last).find(|number| !slots.get(number).is_some_and(&mut stays));
        if let Some(hole) = hole {
            put(dir, hash, hole, &text, slots)?;
        } else if stays(&text) {
            break;
        }
        files::remove(&dir.join(file_name(hash, last)))?;
        removed += 1;
    }
    Ok(removed)
}

fn put(
    dir: &Path,
    hash: u32,
    number: u32,
    text: &[u8],
    slots: &mut Slots,
) -> Result<(), CertsError> {
    let path = dir.join(file_name(hash, number));
    files::replace(&path, text, files::PUBLIC)?;
    slots.insert(number, text.to_owned());
    Ok(())
}

fn file_name(hash: u32, number: u32) -> String {
    format!("{hash:08x}.{number}")
}

/// The canonical encoding of a name (`x509_name_canon` in OpenSSL's `crypto/x509/x_name.c`): the
/// relative names without the sequence around them, all text as UTF-8 in one spelling.
fn canonical(name: &X509Name<'_>) -> Option<Vec<u8>> {
    let mut encoded = Vec::new();
    for relative in name.iter_rdn() {
        let mut attributes = Vec::new();
        for attribute in relative.iter() {
            let value = canonical_value(attribute.attr_value())?;
            let pair = [attribute.attr_type().to_der_vec(), value];
            let pair: Result<Vec<_>, SerializeError> = pair.into_iter().collect();
            let pair = pair.ok()?.concat();
            attributes.push(Sequence::new(pair.into()).to_der_vec().ok()?);
        }
        attributes.sort();
        encoded.extend(Set::new(attributes.concat().into()).to_der_vec().ok()?);
    }
    Some(encoded)
}

/// A value of a name: text in lower case ASCII, trimmed, each run of white space one space.
/// Nothing where the text is broken; what is not text stays as it is.
fn canonical_value(value: &Any<'_>) -> Option<Result<Vec<u8>, SerializeError>> {
    let data = value.data;
    let text = match value.tag() {
        Tag::Utf8String => str::from_utf8(data).ok()?.to_owned(),
        // OpenSSL takes T.61 text for Latin-1, and any byte in the others likewise.
        Tag::PrintableString | Tag::T61String | Tag::Ia5String | Tag::VisibleString => {
            data.iter().copied().map(char::from).collect()
        }
        Tag::BmpString => wide::<2>(data)?,
        Tag::UniversalString => wide::<4>(data)?,
        _ => return Some(value.to_der_vec()),
    };
    // ASCII white space as C knows it, which includes the vertical tab.
    let is_space = |character| matches!(character, ' ' | '\t'..='\r');
    let words = text.split(is_space).filter(|word| !word.is_empty());
    let text = words.collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    Some(Any::from_tag_and_data(Tag::Utf8String, text.as_bytes()).to_der_vec())
}

/// Text of big-endian characters of `N` bytes each.
fn wide<const N: usize>(data: &[u8]) -> Option<String> {
    let (characters, []) = data.as_chunks::<N>() else {
        return None;
    };
    let number = |bytes: &[u8; N]| {
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
    };
    characters
        .iter()
        .map(|bytes| char::from_u32(number(bytes)))
        .collect()
}
