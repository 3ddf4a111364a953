//! Bundles, and certificates that are refused or soon will be.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rstest::rstest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;

use super::{Doctor, sidecar};
use crate::harness::certificates::{Authority, Pair};
use crate::harness::{Fake, Home, Reply, Sidecar};

type Change = fn(Doctor, &Sidecar) -> Doctor;

fn state(sidecar: &Sidecar, name: &str) -> PathBuf {
    sidecar.home.path("state").join(name)
}

/// A directory with this file in it, which nobody hashed.
fn unhashed(sidecar: &Sidecar, from: &str) -> PathBuf {
    let directory = sidecar.home.path("unhashed");
    fs::create_dir(&directory).unwrap();
    fs::copy(state(sidecar, from), directory.join("cas.pem")).unwrap();
    directory
}

#[rstest]
#[case::no_file(|d: Doctor, _: &Sidecar| d.with("REQUESTS_CA_BUNDLE", "/nowhere"), "bundle", "fail", "No such file")]
#[case::no_pem(|d: Doctor, s: &Sidecar| d.with_path("REQUESTS_CA_BUNDLE", s.home.write("x", "x")),
    "bundle", "fail", "no readable PEM certificate")]
#[case::der(|d: Doctor, s: &Sidecar| d.with_path("REQUESTS_CA_BUNDLE", der(s)), "bundle", "fail", "it is DER, not PEM")]
#[case::joined(|d: Doctor, s: &Sidecar| d.with_path("REQUESTS_CA_BUNDLE", joined(s)), "bundle", "fail", "break that line")]
#[case::home(|d: Doctor, s: &Sidecar| {
    d.with_path("HOME", state(s, "")).with("REQUESTS_CA_BUNDLE", "~/trust")
}, "bundle", "fail", "only shells replace")]
#[case::unhashed(|d: Doctor, s: &Sidecar| d.with_path("REQUESTS_CA_BUNDLE", unhashed(s, "trust.pem")),
    "bundle", "fail", "that OpenSSL finds")]
#[case::merged(|d: Doctor, s: &Sidecar| d.with_path("REQUESTS_CA_BUNDLE", state(s, "trust.pem")),
    "bundle", "warn", "every apply loads anew")]
#[case::ours_alone(|d: Doctor, s: &Sidecar| d.with_path("REQUESTS_CA_BUNDLE", state(s, "ca.pem")),
    "bundle", "warn", "holds no public CAs")]
#[case::lost(|d: Doctor, s: &Sidecar| {
    fs::write(state(s, "trust/company.pem"), fs::read(state(s, "ca.pem")).unwrap()).unwrap(); d
}, "bundle", "warn", "finds nothing in 1 files")]
#[case::curl(|d: Doctor, s: &Sidecar| {
    d.without("REQUESTS_CA_BUNDLE").with_path("CURL_CA_BUNDLE", state(s, "trust"))
}, "bundle", "ok", "CURL_CA_BUNDLE=")]
#[case::unset(|d: Doctor, _: &Sidecar| d.without("REQUESTS_CA_BUNDLE"), "tls", "fail", "is not in the public CAs")]
#[case::ssl_cert_file(|d: Doctor, s: &Sidecar| {
    d.without("REQUESTS_CA_BUNDLE").with_path("SSL_CERT_FILE", state(s, "trust.pem"))
}, "bundle", "warn", "requests does not look at SSL_CERT_FILE")]
#[case::flag(|d: Doctor, s: &Sidecar| {
    d.without("REQUESTS_CA_BUNDLE").arg("--ca-bundle").arg(state(s, "trust").to_str().unwrap())
}, "tls", "ok", "verified by")]
#[case::other_ca(|d: Doctor, s: &Sidecar| {
    d.with_path("REQUESTS_CA_BUNDLE", s.home.write("other.pem", Authority::new("other").pem()))
}, "tls", "fail", "issuer `CN=dstack-admission CA")]
#[case::no_aws(|d: Doctor, _: &Sidecar| d.without("AWS_CA_BUNDLE"), "aws-bundle", "warn", "boto3 cannot read")]
#[case::aws_directory(|d: Doctor, s: &Sidecar| d.with_path("AWS_CA_BUNDLE", state(s, "trust")),
    "aws-bundle", "fail", "boto3 cannot read")]
#[case::aws_missing(|d: Doctor, _: &Sidecar| d.with("AWS_CA_BUNDLE", "/nowhere"), "aws-bundle", "fail", "No such file")]
#[case::aws_ours_alone(|d: Doctor, s: &Sidecar| d.with_path("AWS_CA_BUNDLE", state(s, "ca.pem")),
    "aws-bundle", "warn", "no public CAs")]
#[tokio::test]
async fn a_bundle_that_does_not_do_is_named_with_how_to_mend_it(
    #[case] change: Change,
    #[case] check: &str,
    #[case] status: &str,
    #[case] words: &str,
) {
    let sidecar = sidecar().await;
    let doctor = change(Doctor::of(&sidecar), &sidecar);
    doctor.run().await.assert(check, status, words);
}

/// The made CA as nobody can read it.
fn der(sidecar: &Sidecar) -> PathBuf {
    let ca = CertificateDer::from_pem_file(state(sidecar, "ca.pem")).unwrap();
    sidecar.home.write("ca.der", ca)
}

/// What `cat` makes of a file whose last line does not end.
fn joined(sidecar: &Sidecar) -> PathBuf {
    let ca = fs::read_to_string(state(sidecar, "ca.pem")).unwrap();
    let text = Authority::new("other").pem().trim_end().to_owned() + &ca;
    sidecar.home.write("joined.pem", text)
}

/// What a CA and its certificate are made from.
struct Made {
    ca: CertificateParams,
    leaf: CertificateParams,
}

/// A CA and a certificate of it for `localhost` that Python's strict mode takes, but for what `change` does.
fn certificate(change: fn(&mut Made)) -> (String, Pair) {
    let mut ca = CertificateParams::default();
    ca.distinguished_name
        .push(DnType::CommonName, "doctor's CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let mut leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
    leaf.use_authority_key_identifier_extension = true;
    let mut made = Made { ca, leaf };
    change(&mut made);
    let Made { ca, leaf } = made;
    let keys = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
    let [ca_key, key] = keys;
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let pair = Pair {
        cert: leaf.signed_by(&key, &issuer).unwrap().pem(),
        key: key.serialize_pem(),
    };
    (pem, pair)
}

/// Makes a certificate valid from that many days from now to that many.
fn valid(params: &mut CertificateParams, from: u32, to: u32) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(since.unwrap().as_secs());
    params.not_before = now + Duration::from_secs(86_400) * from;
    params.not_after = now + Duration::from_secs(86_400) * to;
}

fn elsewhere(params: &mut CertificateParams) {
    *params = CertificateParams::new(["elsewhere.example.com".to_owned()]).unwrap();
}

#[rstest]
#[case::good(|_: &mut Made| (), "certificate", "ok", "for localhost")]
#[case::other_name(|made: &mut Made| elsewhere(&mut made.leaf), "tls", "fail", "for elsewhere.example.com, not for")]
#[case::no_name(|made: &mut Made| made.leaf.subject_alt_names.clear(), "tls", "fail", "a subject alone does not")]
#[case::expired(|made: &mut Made| made.leaf.not_after = date_time_ymd(2020, 1, 1), "tls", "fail", "at 2020-01-01")]
#[case::not_yet(|made: &mut Made| valid(&mut made.leaf, 2, 90), "tls", "fail", "clocks")]
#[case::soon(|made: &mut Made| valid(&mut made.leaf, 0, 5), "certificate", "warn", "ends in 4 days")]
#[case::no_aki(|made: &mut Made| made.leaf.use_authority_key_identifier_extension = false,
    "certificate", "warn", "no authority key identifier")]
#[case::ca_without_usage(|made: &mut Made| made.ca.key_usages.clear(),
    "certificate", "warn", "a CA without key usage")]
#[case::ca_expired(|made: &mut Made| made.ca.not_after = date_time_ymd(2020, 1, 1), "tls", "fail", "doctor's CA in")]
#[case::ca_not_yet(|made: &mut Made| valid(&mut made.ca, 2, 90), "tls", "fail", "is not valid before")]
#[case::ca_soon(|made: &mut Made| valid(&mut made.ca, 0, 20), "certificate", "warn", "doctor's CA ends at")]
#[tokio::test]
async fn a_certificate_is_judged_as_python_would(
    #[case] change: fn(&mut Made),
    #[case] check: &str,
    #[case] status: &str,
    #[case] words: &str,
) {
    let home = Home::new();
    let (ca, pair) = certificate(change);
    let fake = Fake::start_tls(pair.server_config(None), |_| Reply::json(&json!({}))).await;
    let doctor = Doctor::at(format!("https://localhost:{}", fake.address.port()));
    let doctor = doctor.with_path("REQUESTS_CA_BUNDLE", home.write("ca.pem", ca));
    doctor.run().await.assert(check, status, words);
    // Nothing is sent to a server that is not the one that was meant.
    assert_eq!(fake.calls().is_empty(), check == "tls" && status == "fail");
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_when_it_is_the_bundle() {
    let home = Home::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pair = Pair {
        cert: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    };
    let fake = Fake::start_tls(pair.server_config(None), |_| Reply::json(&json!({}))).await;
    let doctor = Doctor::at(format!("https://localhost:{}", fake.address.port()));
    let doctor = doctor.with_path("REQUESTS_CA_BUNDLE", home.write("own.pem", pair.cert));
    doctor.run().await.assert("tls", "ok", "TLSv1_3");
    let by_address = doctor.arg("--uri").arg(format!("https://{}", fake.address));
    by_address.run().await.assert("tls", "fail", "");
}

#[tokio::test]
async fn what_speaks_no_tls_is_told_from_what_does_not_answer() {
    let plain = Fake::start(|_| Reply::json(&json!({}))).await;
    let doctor = Doctor::at(format!("https://{}", plain.address));
    doctor.run().await.assert("tls", "fail", "speaks no TLS");

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let doctor = Doctor::at(format!("https://{}", silent.local_addr().unwrap()));
    let doctor = doctor.arg("--timeout").arg("300ms");
    doctor
        .run()
        .await
        .assert("tls", "fail", "nothing within 300ms");
}
