//! Our CAs: made, loaded, and which of them signs at a given moment. Never replaces a CA file.
//!
//! A CA lives ten years. At 80 % of that a successor is made and joins the trust at once, but it
//! signs only thirty days later, so that whoever reads the trust at least once in thirty days
//! never meets a certificate of a CA unknown to it. The old CA stays in the trust to its end.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::{CertsError, files};

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a CA is valid.
pub(super) const LIFE: Duration = Duration::from_secs(3650 * DAY.as_secs());
/// How long a successor is trusted before it signs.
pub(super) const OVERLAP: Duration = Duration::from_secs(30 * DAY.as_secs());
/// How far certificates start in the past, for clients whose clock is behind ours.
pub(super) const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// A CA of ours with its key.
pub(super) struct Authority {
    pub(super) file: PathBuf,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: KeyPair,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    number: u32,
}

/// All CAs in a directory, by number. One that cannot be used is an error: its key may be all
/// that a backup or another replica shares with the clients.
pub(super) fn load_all(tls: &Path) -> Result<Vec<Authority>, CertsError> {
    let mut authorities = Vec::new();
    for (number, file) in numbered(tls)? {
        authorities.push(Authority::load(file, number)?);
    }
    authorities.sort_by_key(|authority| authority.number);
    Ok(authorities)
}

/// Moves the file of each CA, good or broken, into a directory of its own; returns where they are now.
pub(super) fn set_aside(tls: &Path, now: SystemTime) -> Result<Vec<PathBuf>, CertsError> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let aside = tls.join(format!("replaced-{}", since.unwrap_or_default().as_secs()));
    let mut moved = Vec::new();
    for (_, file) in numbered(tls)? {
        files::directory(&aside, files::PRIVATE_DIR)?;
        let to = aside.join(file.file_name().unwrap_or_default());
        fs::rename(&file, &to).map_err(files::failed("move", &file))?;
        moved.push(to);
    }
    moved.sort();
    Ok(moved)
}

/// The files of CAs, with their numbers.
fn numbered(tls: &Path) -> Result<Vec<(u32, PathBuf)>, CertsError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(tls).map_err(files::failed("read", tls))? {
        let file = entry.map_err(files::failed("read", tls))?.path();
        let name = file.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("ca-")?.strip_suffix(".pem"));
        if let Some(number) = number.and_then(|number| number.parse::<u16>().ok()) {
            found.push((number.into(), file));
        }
    }
    Ok(found)
}

/// The CA that signs at `now`: the newest that readers of the trust have had time to load. While
/// there is none, the oldest. One that ends within a day is the last choice.
pub(super) fn signer(authorities: &[Authority], now: SystemTime) -> Option<&Authority> {
    let valid = authorities.iter().filter(|ca| ca.is_valid(now));
    valid.max_by_key(|ca| {
        let lasts = now + DAY < ca.not_after;
        let loaded = ca.signs_from() <= now;
        let newest_loaded = loaded.then_some(ca.not_before);
        (lasts, newest_loaded, Reverse(ca.not_before))
    })
}

impl Authority {
    /// Makes a CA after the last one and writes its file.
    pub(super) fn make(
        tls: &Path,
        last: Option<&Authority>,
        now: SystemTime,
    ) -> Result<Self, CertsError> {
        let number = last.map_or(1, |last| last.number + 1);
        let file = tls.join(format!("ca-{number}.pem"));
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // A subject of its own for each CA: a client picks the issuer by name.
        let id = hex(params.key_identifier(&key).get(..4).unwrap_or_default());
        params.distinguished_name = subject(&format!("dstack-admission CA {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now - BACKDATE, now + LIFE);
        let pem = params.self_signed(&key)?.pem() + &key.serialize_pem();
        files::write(&file, pem.as_bytes(), files::PRIVATE)?;
        Self::load(file, number)
    }

    fn load(file: PathBuf, number: u32) -> Result<Self, CertsError> {
        let bytes = fs::read(&file).map_err(files::failed("read", &file))?;
        let broken = |problem| CertsError::Authority {
            path: file.clone(),
            problem,
        };
        let (certificate, key) = pair(&bytes).map_err(broken)?;
        let x509 = parse(&certificate).ok_or(broken("it holds no X.509 certificate"))?;
        let usage = x509.key_usage().ok().flatten();
        if !x509.is_ca() || usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(broken("its certificate may not sign others"));
        }
        let not_before = moment(x509.validity().not_before);
        let not_after = moment(x509.validity().not_after);
        Ok(Self {
            file,
            certificate,
            key,
            not_before,
            not_after,
            number,
        })
    }

    /// Valid, and not yet due for a successor.
    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        self.is_valid(now) && now < self.successor_due()
    }

    /// The moments at which something changes for this CA.
    pub(super) fn milestones(&self) -> [SystemTime; 4] {
        let due = self.successor_due();
        [self.not_before, self.signs_from(), due, self.not_after]
    }

    fn is_valid(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }

    fn successor_due(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before);
        self.not_before + life.unwrap_or_default() / 5 * 4
    }

    fn signs_from(&self) -> SystemTime {
        self.not_before + BACKDATE + OVERLAP
    }
}

/// A subject with only a common name.
pub(super) fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// The first certificate in PEM text and the private key that belongs to it.
pub(super) fn pair(pem: &[u8]) -> Result<(CertificateDer<'static>, KeyPair), &'static str> {
    let certificate = CertificateDer::from_pem_slice(pem).or(Err("it holds no PEM certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(pem).or(Err("it holds no PEM private key"))?;
    let key = KeyPair::try_from(&key).or(Err("its private key is not readable as PKCS #8"))?;
    let x509 = parse(&certificate).ok_or("it holds no X.509 certificate")?;
    if *x509.public_key().subject_public_key.data != *key.public_key_raw() {
        return Err("its private key belongs to another certificate");
    }
    Ok((certificate, key))
}

/// Reads a certificate of which not a byte is left over.
pub(super) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, x509) = X509Certificate::from_der(certificate).ok()?;
    rest.is_empty().then_some(x509)
}

/// Sets from when until when a certificate is valid, in whole seconds.
pub(super) fn set_validity(params: &mut CertificateParams, from: SystemTime, until: SystemTime) {
    let date = |moment: SystemTime| {
        let since = moment.duration_since(SystemTime::UNIX_EPOCH);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since.unwrap_or_default().as_secs())
    };
    params.not_before = date(from);
    params.not_after = date(until);
}

/// A date of a certificate as a moment; before 1970 is 1970.
pub(super) fn moment(date: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(date.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
