//! The trust directory and file, against readers at work and OpenSSL's own tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::slice;
use std::thread;

use rcgen::string::{BmpString, Ia5String, PrintableString, TeletexString, UniversalString};
use rcgen::{CertificateParams, DnType, DnValue, KeyPair};
use rstest::rstest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{certificates, day, ensure_on, run, trust};

/// Which of these certificates OpenSSL would not find: it tries numbers up to the first gap.
fn missing(dir: &Path, wanted: &[(u32, String)]) -> usize {
    let is_found = |(hash, text): &&(u32, String)| {
        let files =
            (0..).map(|number| fs::read_to_string(dir.join(format!("{hash:08x}.{number}"))));
        files.map_while(Result::ok).any(|held| held == *text)
    };
    wanted.len() - wanted.iter().filter(is_found).count()
}

#[test]
fn a_reader_finds_what_stays_trusted_at_every_moment_of_a_refresh() {
    let dir = tempfile::tempdir().unwrap();
    let (trust_dir, file) = (dir.path().join("trust"), dir.path().join("trust.pem"));
    let all: Vec<_> = trust::public_roots().collect();
    let (larger, smaller) = (all.as_slice(), &all[3..]);
    let hashed = |der: &CertificateDer<'_>| (trust::subject_hash(der).unwrap(), trust::pem(der));
    let wanted: Vec<_> = smaller.iter().map(hashed).collect();
    trust::write(&trust_dir, &file, larger).unwrap();

    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..50 {
                trust::write(&trust_dir, &file, smaller).unwrap();
                trust::write(&trust_dir, &file, larger).unwrap();
            }
        });
        let mut rounds = 0;
        while !writer.is_finished() {
            assert_eq!(missing(&trust_dir, &wanted), 0);
            assert!(certificates(&file).len() >= smaller.len());
            rounds += 1;
        }
        assert!(rounds > 5, "{rounds}");
    });
}

/// A certificate of a fixed subject and a new key.
fn twin() -> CertificateDer<'static> {
    named(DnValue::Utf8String("Twin".into()))
}

fn named(name: DnValue) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap()
        .into()
}

#[test]
fn certificates_of_one_subject_are_numbered_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (trust_dir, file) = (dir.path().join("trust"), dir.path().join("trust.pem"));
    let twins = [twin(), twin(), twin()];
    let hash = trust::subject_hash(&twins[0]).unwrap();
    let write = |of: &[CertificateDer<'_>]| {
        let change = trust::write(&trust_dir, &file, of).unwrap();
        let wanted: Vec<_> = of.iter().map(|der| (hash, trust::pem(der))).collect();
        assert_eq!(missing(&trust_dir, &wanted), 0);
        assert_eq!(
            fs::read_dir(&trust_dir).unwrap().count(),
            of.len() + 2,
            "and two others"
        );
        (change.added, change.removed)
    };
    fs::create_dir(&trust_dir).unwrap();
    fs::write(trust_dir.join("README"), "not ours").unwrap();
    let [a, b, c] = &twins;
    assert_eq!(write(&[a.clone(), b.clone(), c.clone()]), (3, 0));
    assert_eq!(write(slice::from_ref(c)), (0, 2));
    assert_eq!(write(slice::from_ref(a)), (1, 1));
    let slot = |number| trust_dir.join(format!("{hash:08x}.{number}"));
    fs::rename(slot(0), slot(7)).unwrap();
    assert_eq!(write(slice::from_ref(a)), (0, 1), "the gap is closed");
    fs::write(slot(0), "torn").unwrap();
    assert_eq!(
        write(slice::from_ref(a)),
        (1, 1),
        "what is torn is replaced"
    );
    assert_eq!(write(slice::from_ref(a)), (0, 0));
}

#[test]
fn a_bundle_is_read_whole_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("company.pem");
    let two = trust::pem(&twin()) + "a comment\n" + &trust::pem(&twin());
    fs::write(&file, &two).unwrap();
    assert_eq!(certificates(&file).len(), 2);
    for bad in [
        "",
        "no PEM",
        &two[..two.len() - 60],
        &two.replace("MII", "MIJ"),
    ] {
        fs::write(&file, bad).unwrap();
        let error = trust::read_bundle(&file).unwrap_err().to_string();
        assert!(
            error.ends_with("company.pem holds no readable PEM certificate"),
            "{error}"
        );
    }
}

#[test]
fn a_certificate_is_never_passed_over_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("company.pem");
    let refused = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        trust::read_bundle(&file).unwrap_err().to_string()
    };
    let joined = trust::pem(&twin()).trim_end().to_owned() + &trust::pem(&twin());
    assert!(refused(joined.as_bytes()).ends_with("where another ends: break that line"));
    assert!(refused(&twin()).contains("is DER, not PEM: `openssl x509"));
}

#[test]
fn the_hashed_directory_is_the_one_that_openssl_rehash_makes() {
    let dir = tempfile::tempdir().unwrap();
    let made = ensure_on(dir.path(), day(0));
    let theirs = dir.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    for (index, certificate) in certificates(&made.trust_file).iter().enumerate() {
        fs::write(theirs.join(format!("{index}.pem")), trust::pem(certificate)).unwrap();
    }
    run("openssl", &["rehash", theirs.to_str().unwrap()]);
    let groups = |dir: &Path| {
        let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some((hash, number)) = name.split_once('.')
                && number.parse::<u32>().is_ok()
            {
                let text = fs::read_to_string(&path).unwrap();
                groups.entry(hash.to_owned()).or_default().insert(text);
            }
        }
        groups
    };
    assert!(groups(&theirs).len() > 100);
    assert_eq!(groups(&made.trust_dir), groups(&theirs));
}

/// Replaces bytes of a certificate, whose signature nobody checks here.
fn patch(der: CertificateDer<'_>, from: &[u8], to: &[u8]) -> CertificateDer<'static> {
    let at = der
        .windows(from.len())
        .position(|part| part == from)
        .unwrap();
    let mut bytes = der.to_vec();
    // The issuer comes before the subject, and both are the same name.
    let next = at
        + 1
        + der[at + 1..]
            .windows(from.len())
            .position(|part| part == from)
            .unwrap();
    bytes[next..next + to.len()].copy_from_slice(to);
    bytes.into()
}

fn check_hash(certificate: &CertificateDer<'_>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.pem");
    fs::write(&file, trust::pem(certificate)).unwrap();
    let theirs = run(
        "openssl",
        &["x509", "-noout", "-hash", "-in", file.to_str().unwrap()],
    );
    let ours = trust::subject_hash(certificate).unwrap();
    assert_eq!(format!("{ours:08x}"), theirs.trim());
}

#[rstest]
#[case(named(DnValue::Utf8String("  Grüße \t\u{b} AUS  ÄÖ\u{a0} ".into())))]
#[case(named(DnValue::Utf8String(" ".into())))]
#[case(named(DnValue::PrintableString(PrintableString::try_from(" Foo   BAR ").unwrap())))]
#[case(named(DnValue::Ia5String(Ia5String::try_from("A@b  C").unwrap())))]
#[case(named(DnValue::BmpString(BmpString::try_from("Ünï  CØDE €").unwrap())))]
#[case(named(DnValue::UniversalString(UniversalString::try_from("Ünï  CØDE 😀").unwrap())))]
#[case(named(DnValue::TeletexString(TeletexString::try_from("Telex  NAME").unwrap())))]
#[case::latin(patch(
    named(DnValue::TeletexString(TeletexString::try_from("GrXXe").unwrap())),
    b"GrXXe", b"Gr\xc4\xdfe"))]
#[case::numeric_is_no_text(patch(
    named(DnValue::PrintableString(PrintableString::try_from("12  34").unwrap())),
    b"\x13\x0612  34", b"\x12\x06"))]
fn a_subject_of_any_text_hashes_as_openssl_does(#[case] certificate: CertificateDer<'static>) {
    check_hash(&certificate);
}

#[test]
fn a_name_of_several_values_at_once_hashes_as_openssl_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (key, certificate) = (file("key.pem"), file("c.pem"));
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-noenc",
            "-multivalue-rdn",
            "-utf8",
            "-subj",
            "/UID= zz  Z+OU=Bb+CN=aa Ä/C=DE/O=  X",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ],
    );
    check_hash(&CertificateDer::from_pem_file(certificate).unwrap());
}

#[test]
fn broken_text_in_a_subject_is_an_error() {
    let name = named(DnValue::Utf8String("GrXXe".into()));
    let broken = patch(name, b"GrXXe", b"Gr\xff\xffe");
    assert!(trust::subject_hash(&broken).is_err());
    assert!(trust::subject_hash(&b"\x30\x00".as_slice().into()).is_err());
}
