//! The state directory through starts, harm, years and clock jumps; clients of rustls and Python.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rstest::rstest;
use rustls::client::{WebPkiServerVerifier, danger::ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::authority::DAY;
use super::*;

mod trust_files;

const SERVED: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

fn names(texts: &[&'static str]) -> Vec<ServerName<'static>> {
    let names = texts.iter().map(|text| ServerName::try_from(*text));
    names.collect::<Result<_, _>>().unwrap()
}

/// A moment this many days after 2025-06-01.
fn day(days: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_748_736_000) + DAY * days
}

fn ensure_on(dir: &Path, now: SystemTime) -> Made {
    ensure(dir, &names(&SERVED), now).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    trust::read_bundle(path).unwrap()
}

/// Runs a program and returns what it prints; it must succeed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let install = format!("install it: apt-get install {program}");
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; {install}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_first_start_makes_everything_and_the_next_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("not/there");
    let made = ensure_on(&state, day(0));
    let [ca, trust, certificate] = made.done.as_slice() else {
        panic!("{:?}", made.done);
    };
    let roots = trust::public_roots().count();
    assert!(matches!(ca, Done::Authority { file, .. } if file.ends_with("tls/ca-1.pem")));
    assert!(matches!(trust, Done::Trust { added, removed: 0 } if *added == roots + 1));
    assert!(matches!(
        certificate,
        Done::Certificate {
            why: Why::Missing,
            ..
        }
    ));
    assert_eq!(made.leaf_not_after, day(90));
    assert_eq!(made.ca_not_after, day(3650));
    assert!(day(30) <= made.next_check && made.next_check <= day(60));

    assert_eq!(mode(&state.join("tls")), 0o700);
    assert_eq!(mode(&state.join("tls/ca-1.pem")), 0o600);
    assert_eq!(mode(&made.server_file), 0o600);
    assert_eq!(mode(&state), 0o755);
    assert_eq!(mode(&made.trust_dir), 0o755);
    for file in [&made.ca_file, &made.trust_file] {
        assert_eq!(mode(file), 0o644);
        assert!(!fs::read_to_string(file).unwrap().contains("PRIVATE"));
    }
    let environment = made.server_environment();
    assert_eq!(
        environment[0],
        ("REQUESTS_CA_BUNDLE", &*state.join("trust"))
    );
    assert_eq!(environment[1], ("AWS_CA_BUNDLE", &*state.join("trust.pem")));

    let written = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let before = [&made.server_file, &made.trust_file].map(|path| written(path));
    let again = ensure_on(&state, day(59));
    assert_eq!(again.done, []);
    assert_eq!(
        [&made.server_file, &made.trust_file].map(|path| written(path)),
        before
    );
    assert_eq!(again.leaf_not_after, made.leaf_not_after);
}

fn mangle(path: &Path, change: impl FnOnce(String) -> String) {
    fs::write(path, change(fs::read_to_string(path).unwrap())).unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

/// PEM text of a fresh key that belongs to no certificate.
fn stray_key() -> String {
    KeyPair::generate().unwrap().serialize_pem()
}

/// The certificate of a PEM file with another key.
fn with_stray_key(text: String) -> String {
    text.split_once("-----BEGIN PRIVATE").unwrap().0.to_owned() + &stray_key()
}

#[rstest]
#[case::no_file(|made: &Made| remove(&made.server_file), 1, Why::Missing)]
#[case::no_pem(
    |made: &Made| mangle(&made.server_file, |_| "\0".into()), 1,
    Why::Broken("it holds no PEM certificate"))]
#[case::cut_short(
    |made: &Made| mangle(&made.server_file, |text| text[..600].into()), 1,
    Why::Broken("it holds no PEM certificate"))]
#[case::other_key(
    |made: &Made| mangle(&made.server_file, with_stray_key), 1,
    Why::Broken("its private key belongs to another certificate"))]
#[case::another_ca(
    |made: &Made| remove(&made.server_file.with_file_name("ca-1.pem")), 1, Why::OtherAuthority)]
#[case::two_thirds_over(|_: &Made| (), 60, Why::Due)]
#[case::expired(|_: &Made| (), 100, Why::Due)]
fn a_certificate_that_no_longer_serves_is_replaced(
    #[case] harm: fn(&Made),
    #[case] days: u32,
    #[case] expected: Why,
) {
    let dir = tempfile::tempdir().unwrap();
    harm(&ensure_on(dir.path(), day(0)));
    let made = ensure_on(dir.path(), day(days));
    let not_after = day(days + 90);
    let why = expected;
    assert_eq!(
        made.done.last(),
        Some(&Done::Certificate { not_after, why })
    );
    assert_eq!(ensure_on(dir.path(), day(days)).done, []);
}

#[test]
fn other_names_get_another_certificate_and_the_same_names_do_not() {
    let dir = tempfile::tempdir().unwrap();
    ensure(dir.path(), &names(&["a.example", "10.0.0.1"]), day(0)).unwrap();
    let same = names(&["10.0.0.1", "A.example", "a.example."]);
    assert_eq!(ensure(dir.path(), &same, day(1)).unwrap().done, []);
    let other = ensure(dir.path(), &names(&["a.example", "10.0.0.2"]), day(1)).unwrap();
    assert!(matches!(
        other.done[..],
        [Done::Certificate {
            why: Why::OtherNames,
            ..
        }]
    ));
    let none = ensure(dir.path(), &[], day(1)).unwrap_err();
    assert_eq!(
        none.to_string(),
        "a made certificate needs at least one name"
    );
}

#[rstest]
#[case(|_: String| "garbage".into(), "it holds no PEM certificate")]
#[case(|text: String| text.replace("PRIVATE", "PUBLIC"), "it holds no PEM private key")]
#[case(with_stray_key, "its private key belongs to another certificate")]
#[case(|_: String| {
    let key = KeyPair::generate().unwrap();
    CertificateParams::default().self_signed(&key).unwrap().pem() + &key.serialize_pem()
}, "its certificate may not sign others")]
fn a_broken_ca_is_refused_by_name_and_left_as_it_is(
    #[case] harm: fn(String) -> String,
    #[case] problem: &str,
) {
    let dir = tempfile::tempdir().unwrap();
    ensure_on(dir.path(), day(0));
    let file = dir.path().join("tls/ca-1.pem");
    mangle(&file, harm);
    let broken = fs::read(&file).unwrap();
    let error = ensure(dir.path(), &names(&SERVED), day(1))
        .unwrap_err()
        .to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
    assert!(error.contains(problem), "{error}");
    assert!(error.contains("Restore the file from a backup"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), broken);
    assert_eq!(fs::read_dir(dir.path().join("tls")).unwrap().count(), 3);
}

/// Whether a client with these CAs accepts the certificate at this moment, as rustls judges it.
fn accepts(cas: &[CertificateDer<'static>], leaf: &CertificateDer<'_>, at: SystemTime) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(cas.iter().cloned());
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let verifier = verifier.build().unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let at = UnixTime::since_unix_epoch(since);
    verifier
        .verify_server_cert(leaf, &[], &name, &[], at)
        .is_ok()
}

#[test]
fn through_the_years_a_client_that_loads_the_trust_monthly_always_connects() {
    let dir = tempfile::tempdir().unwrap();
    let mut trusts: Vec<(SystemTime, Vec<CertificateDer<'static>>)> = Vec::new();
    let mut now = day(0);
    while now < day(25 * 365) {
        let made = ensure_on(dir.path(), now);
        let leaf = CertificateDer::from_pem_file(&made.server_file).unwrap();
        trusts.push((now, certificates(&made.ca_file)));
        assert!(made.next_check > now && made.next_check < made.leaf_not_after);
        assert!(made.leaf_not_after <= made.ca_not_after);
        for at in [now, made.next_check - Duration::from_secs(1)] {
            let stale = trusts.iter().rfind(|(loaded, _)| *loaded + DAY * 29 <= at);
            let (loaded, cas) = stale.unwrap_or(&trusts[0]);
            assert!(
                accepts(cas, &leaf, at),
                "at {at:?} with the trust of {loaded:?}"
            );
        }
        let expired = |ca| authority::moment(authority::parse(ca).unwrap().validity().not_after);
        let (_, cas) = trusts.last().unwrap();
        assert!(cas.iter().all(|ca| now < expired(ca)));
        now = made.next_check;
    }
    // Made at 0, 8, 16 and 24 years; the first two have expired and left the trust.
    assert!(dir.path().join("tls/ca-4.pem").exists());
    assert!(!dir.path().join("tls/ca-5.pem").exists());
    assert_eq!(trusts.last().unwrap().1.len(), 2);
    assert_eq!(trusts.iter().map(|(_, cas)| cas.len()).max(), Some(2));
}

#[rstest]
#[case::the_clock_was_ahead(day(20_000), day(0))]
#[case::the_clock_was_behind(SystemTime::UNIX_EPOCH, day(0))]
#[case::it_was_off_until_its_ca_had_ten_days_left(day(0), day(3640))]
#[case::it_was_off_until_its_ca_had_hours_left(day(0), day(3649))]
fn a_clock_that_jumps_leaves_a_certificate_that_is_valid_now(
    #[case] first: SystemTime,
    #[case] then: SystemTime,
) {
    let dir = tempfile::tempdir().unwrap();
    ensure_on(dir.path(), first);
    let old_ca = fs::read(dir.path().join("tls/ca-1.pem")).unwrap();
    for now in [then, then + DAY, then + DAY * 2] {
        let made = ensure_on(dir.path(), now);
        let leaf = CertificateDer::from_pem_file(&made.server_file).unwrap();
        assert!(accepts(&certificates(&made.ca_file), &leaf, now));
        assert!(made.leaf_not_after <= made.ca_not_after);
        assert!(made.next_check > now);
    }
    assert_eq!(fs::read(dir.path().join("tls/ca-1.pem")).unwrap(), old_ca);
}

#[test]
fn many_at_once_on_one_directory_agree() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| ensure_on(dir.path(), day(0))))
                .collect();
            starts
                .into_iter()
                .flat_map(|start| start.join().unwrap().done)
                .count()
        })
    };
    assert_eq!(start(), 3, "one CA, one trust, one certificate");
    assert_eq!(start(), 0);
    assert!(!dir.path().join("tls/ca-2.pem").exists());
}

/// Connects as the dstack server's Python does, with the checks that are default from 3.13 on.
const CLIENT: &str = r#"
import os, socket, ssl, sys
state, port = sys.argv[1], int(sys.argv[2])
def connect(name, **trust):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(**trust)
    with socket.create_connection(("127.0.0.1", port)) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=name) as tls:
                return tls.recv(9).decode()
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
trusts = [{"capath": state + "/trust"}, {"cafile": state + "/trust.pem"}, {"cafile": state + "/ca.pem"}]
for trust in trusts:
    for name in ("localhost", "127.0.0.1", "::1"):
        print(connect(name, **trust))
print(connect("other.example", **trusts[0]))
print(connect("localhost", cafile=state + "/public.pem"))
"#;

#[test]
fn python_in_strict_mode_accepts_the_certificate_by_every_form_of_the_trust() {
    let dir = tempfile::tempdir().unwrap();
    let made = ensure_on(dir.path(), SystemTime::now());
    let public: Vec<_> = trust::public_roots().collect();
    let other = dir.path().join("public");
    trust::write(&other, &dir.path().join("public.pem"), &public).unwrap();

    let chain = vec![CertificateDer::from_pem_file(&made.server_file).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&made.server_file).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
    let config = Arc::new(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // A client that refuses the certificate ends the connection with an error here.
            let mut stream = stream.unwrap();
            let mut tls = rustls::Stream::new(&mut connection, &mut stream);
            if tls.write_all(b"welcome").is_ok() {
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        }
    });

    let said = run(
        "python3",
        &["-c", CLIENT, dir.path().to_str().unwrap(), &port],
    );
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..9], ["welcome"; 9], "{said}");
    assert!(lines[9].starts_with("Hostname mismatch"), "{said}");
    assert_eq!(lines[10], "unable to get local issuer certificate");
}
