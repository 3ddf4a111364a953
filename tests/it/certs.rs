//! `certs`, and what OpenSSL thinks of its work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rstest::rstest;
use serde_json::{Value, json};

use crate::harness::certificates::Authority;
use crate::harness::{Home, Sidecar};

/// Runs `certs`. Returns its exit code, what it printed and what it complained of.
fn certs(home: &Home, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dstack-admission"));
    command.env_clear().current_dir(home.path(""));
    let output = command.arg("certs").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[track_caller]
fn done(home: &Home, arguments: &[&str]) -> String {
    let (code, said, complained) = certs(home, arguments);
    assert_eq!(code, Some(0), "{complained}");
    said
}

/// Runs OpenSSL in the directory. Returns whether it succeeds, and what it says.
fn openssl(home: &Home, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(home.path(""));
    let output = command.output();
    let output = output.expect("install it: apt-get install openssl");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Whether OpenSSL, as strict as Python 3.13, takes the made certificate for this name.
fn is_verified(home: &Home, trust: [&str; 2], name: &str) -> bool {
    let mut arguments = vec!["verify", "-x509_strict", "-purpose", "sslserver"];
    arguments.extend(["-no-CAfile", "-no-CApath", "-no-CAstore"]);
    arguments.retain(|argument| !(*argument == "-no-CAfile" && trust[0] == "-CAfile"));
    arguments.retain(|argument| !(*argument == "-no-CApath" && trust[0] == "-CApath"));
    let by = match name.parse::<std::net::IpAddr>() {
        Ok(_) => "-verify_ip",
        Err(_) => "-verify_hostname",
    };
    arguments.extend(trust);
    arguments.extend([by, name, "made/tls/server.pem"]);
    openssl(home, &arguments).0
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_made_certificate_is_verified_by_openssl_for_its_names_alone() {
    let home = Home::new();
    let said = done(
        &home,
        &["make", "-d", "made", "-n", "a.example", "-n", "10.0.0.1"],
    );
    let variable = format!("REQUESTS_CA_BUNDLE={}", home.path("made/trust").display());
    assert!(said.lines().any(|line| line == variable), "{said}");
    for trust in [
        ["-CAfile", "made/ca.pem"],
        ["-CAfile", "made/trust.pem"],
        ["-CApath", "made/trust"],
    ] {
        assert!(is_verified(&home, trust, "a.example"), "{trust:?}");
        assert!(is_verified(&home, trust, "10.0.0.1"), "{trust:?}");
        assert!(!is_verified(&home, trust, "b.example"), "{trust:?}");
        assert!(!is_verified(&home, trust, "127.0.0.1"), "{trust:?}");
    }
    for (name, expected) in [
        ("made/tls", 0o700),
        ("made/tls/ca-1.pem", 0o600),
        ("made/tls/server.pem", 0o600),
        ("made/ca.pem", 0o644),
        ("made/trust", 0o755),
        ("made/trust.pem", 0o644),
    ] {
        assert_eq!(mode(&home.path(name)), expected, "{name}");
    }
}

#[test]
fn a_ca_is_replaced_by_force_alone_and_then_kept_aside() {
    let home = Home::new();
    done(&home, &["make", "-d", "made", "-n", "a.example"]);
    let old = fs::read(home.path("made/tls/ca-1.pem")).unwrap();
    let (code, said, complained) = certs(&home, &["make", "-d", "made"]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(
        complained.contains("there is a CA in made already"),
        "{complained}"
    );
    assert_eq!(fs::read(home.path("made/tls/ca-1.pem")).unwrap(), old);

    fs::copy(home.path("made/ca.pem"), home.path("old-ca.pem")).unwrap();
    let said = done(&home, &["make", "-d", "made", "--force"]);
    let (_, aside) = said.lines().next().unwrap().split_once("away: ").unwrap();
    assert_eq!(fs::read(home.path(aside)).unwrap(), old);
    assert_eq!(mode(&home.path(aside)), 0o600);
    assert!(is_verified(&home, ["-CApath", "made/trust"], "a.example"));
    assert!(!is_verified(&home, ["-CAfile", "old-ca.pem"], "a.example"));
}

#[test]
fn a_renewed_certificate_is_another_one_of_the_same_ca_and_names() {
    let home = Home::new();
    let (code, _, complained) = certs(&home, &["renew", "-d", "made"]);
    assert_eq!(code, Some(1));
    assert!(
        complained.contains("there is no CA in made yet"),
        "{complained}"
    );

    done(&home, &["make", "-d", "made", "-n", "a.example"]);
    let before =
        ["made/ca.pem", "made/tls/server.pem"].map(|name| fs::read(home.path(name)).unwrap());
    let said = done(&home, &["renew", "-d", "made"]);
    assert!(said.contains("it was asked for"), "{said}");
    let after =
        ["made/ca.pem", "made/tls/server.pem"].map(|name| fs::read(home.path(name)).unwrap());
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
    assert!(is_verified(&home, ["-CApath", "made/trust"], "a.example"));

    let said = done(&home, &["renew", "-d", "made", "-n", "b.example"]);
    assert!(said.contains("`serverNames`"), "{said}");
    assert!(is_verified(&home, ["-CApath", "made/trust"], "b.example"));
    assert!(!is_verified(&home, ["-CApath", "made/trust"], "a.example"));
}

#[tokio::test]
async fn what_a_configuration_needs_is_made_before_it_is_served() {
    let home = Home::new();
    let config =
        home.configure(&json!({"serverNames": ["a.example"], "stateDir": home.path("made")}));
    let config_argument = config.to_str().unwrap();
    done(&home, &["make", "--config", config_argument]);
    for name in ["a.example", "localhost", "127.0.0.1", "::1"] {
        assert!(
            is_verified(&home, ["-CApath", "made/trust"], name),
            "{name}"
        );
    }
    let made = fs::read(home.path("made/tls/server.pem")).unwrap();
    let sidecar = Sidecar::start_with(home, &config).await;
    assert_eq!(
        fs::read(sidecar.home.path("made/tls/server.pem")).unwrap(),
        made
    );
}

#[rstest]
#[case::off(json!({"tls": "off"}), 1, "it says `tls: off`")]
#[case::broken(json!({"lissten": 1}), 2, "did you mean `listen`")]
fn a_configuration_without_made_certificates_is_refused(
    #[case] keys: Value,
    #[case] expected: i32,
    #[case] why: &str,
    #[values("make", "renew", "print")] command: &str,
) {
    let home = Home::new();
    let config = home.configure(&keys);
    let (code, said, complained) = certs(&home, &[command, "--config", config.to_str().unwrap()]);
    assert_eq!((code, said.as_str()), (Some(expected), ""));
    assert!(complained.contains(why), "{complained}");
}

#[test]
fn what_is_printed_is_what_openssl_reads() {
    let home = Home::new();
    done(
        &home,
        &["make", "-d", "made", "-n", "a.example", "-n", "::1"],
    );
    let printed: Value =
        serde_json::from_str(&done(&home, &["print", "-d", "made", "-o", "json"])).unwrap();
    let [ca, server] = printed.as_array().unwrap().as_slice() else {
        panic!("{printed:#}");
    };
    for (one, file) in [(ca, "made/ca.pem"), (server, "made/tls/server.pem")] {
        let arguments = ["x509", "-noout", "-fingerprint", "-sha256", "-in", file];
        let (_, said) = openssl(&home, &arguments);
        let fingerprint = one["fingerprintSha256"].as_str().unwrap();
        assert_eq!(said.trim().split_once('=').unwrap().1, fingerprint);
        let (_, said) = openssl(&home, &["x509", "-noout", "-serial", "-in", file]);
        let serial = one["serial"].as_str().unwrap().replace(':', "");
        assert_eq!(said.trim(), format!("serial={serial}"));
        assert_eq!(one["notStrict"], json!([]));
    }
    assert_eq!(server["names"], json!(["::1", "a.example"]));
    assert_eq!(server["issuer"], ca["subject"]);
    assert_eq!((&server["ca"], &ca["ca"]), (&json!(false), &json!(true)));
    assert_eq!(ca["keyUsage"], json!(["keyCertSign", "cRLSign"]));
    assert_eq!(server["keyUsage"], json!(["digitalSignature"]));
    assert_eq!(server["extendedKeyUsage"], json!(["serverAuth"]));

    let text = done(&home, &["print", "made/tls/server.pem"]);
    for line in [
        "subject  CN=dstack-admission",
        "names    ::1, a.example",
        "89 days left",
        "strict   yes",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("PRIVATE"), "{text}");
}

#[test]
fn a_certificate_that_strict_clients_refuse_is_printed_as_such() {
    let home = Home::new();
    let authority = Authority::new("lax");
    home.write("lax.pem", authority.pem());
    home.write("leaf.pem", authority.server().cert);
    let text = done(&home, &["print", "lax.pem", "leaf.pem"]);
    for why in ["a CA without key usage", "no authority key identifier"] {
        let line = format!("strict   no (Python 3.13 and later refuse it): {why}");
        assert!(text.contains(&line), "{text}");
    }
    let verify = ["verify", "-CAfile", "lax.pem", "leaf.pem"];
    assert!(openssl(&home, &verify).0);
    let strictly = ["verify", "-x509_strict", "-CAfile", "lax.pem", "leaf.pem"];
    assert!(!openssl(&home, &strictly).0);
}

#[test]
fn a_bundle_trusts_what_it_is_given_and_the_public() {
    let home = Home::new();
    done(&home, &["make", "-d", "made", "-n", "a.example"]);
    let company = Authority::new("company");
    home.write("company.pem", company.pem());
    let said = done(
        &home,
        &["bundle", "-d", "bundle", "made/ca.pem", "company.pem"],
    );
    let variable = format!("AWS_CA_BUNDLE={}", home.path("bundle/trust.pem").display());
    assert!(said.lines().any(|line| line == variable), "{said}");
    assert!(is_verified(&home, ["-CApath", "bundle/trust"], "a.example"));
    assert!(is_verified(
        &home,
        ["-CAfile", "bundle/trust.pem"],
        "a.example"
    ));
    let held = fs::read_dir(home.path("bundle/trust")).unwrap().count();
    assert!(held > 50, "{held}");

    // Written anew without our CA, it no longer holds it.
    done(
        &home,
        &["bundle", "-d", "bundle", "--no-public", "company.pem"],
    );
    assert!(!is_verified(
        &home,
        ["-CApath", "bundle/trust"],
        "a.example"
    ));
    let text = done(&home, &["print", "bundle/trust.pem"]);
    assert_eq!(text.matches("subject  ").count(), 1, "{text}");
}

#[test]
fn a_ca_that_is_past_or_near_its_end_is_warned_of_and_bundled_all_the_same() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let home = Home::new();
    let now = SystemTime::now();
    let ends = [
        ("past", now - DAY),
        ("near", now + 20 * DAY),
        ("far", now + 31 * DAY),
    ];
    for (name, end) in ends {
        home.write(&format!("{name}.pem"), Authority::until(name, end).pem());
    }
    let date = |end: SystemTime| {
        let text = humantime::format_rfc3339_seconds(end).to_string();
        text.split_once('T').unwrap().0.to_owned()
    };
    for arguments in [
        &["bundle", "-d", "bundle", "past.pem", "near.pem", "far.pem"][..],
        &["print", "past.pem", "near.pem", "far.pem"],
        &["print", "-o", "json", "past.pem", "near.pem", "far.pem"],
    ] {
        let (code, said, complained) = certs(&home, arguments);
        assert_eq!(code, Some(0), "{complained}");
        assert!(!said.contains("warning"), "{said}");
        let warnings: Vec<_> = complained.lines().collect();
        assert_eq!(warnings.len(), 2, "{complained}");
        let past = format!(
            "warning: past.pem: the CA CN=past expired at {}",
            date(now - DAY)
        );
        let near = format!(
            "warning: near.pem: the CA CN=near ends at {}",
            date(now + 20 * DAY)
        );
        assert!(warnings[0].contains(&past), "{complained}");
        assert!(warnings[1].contains(&near), "{complained}");
    }
    let held = fs::read_to_string(home.path("bundle/trust.pem")).unwrap();
    for name in ["past.pem", "near.pem", "far.pem"] {
        let ca = fs::read_to_string(home.path(name)).unwrap();
        let body = ca.lines().nth(1).unwrap();
        assert!(held.contains(body), "{name}");
    }
}

#[test]
fn a_bundle_of_what_is_no_ca_is_warned_of() {
    let home = Home::new();
    done(&home, &["make", "-d", "made"]);
    let (code, _, complained) = certs(&home, &["bundle", "-d", "bundle", "made/tls/server.pem"]);
    assert_eq!(code, Some(0));
    let told = "warning: made/tls/server.pem: the certificate ";
    assert!(complained.starts_with(told), "{complained}");
    let mend = "is no CA, and clients trust nothing by it: give the CA ";
    assert!(complained.contains(mend), "{complained}");
}

#[rstest]
#[case::state_dir(&["bundle", "-d", "made"], "whose trust the sidecar keeps itself")]
#[case::nobody(&["bundle", "-d", "other", "--no-public"], "nobody to trust")]
#[case::no_pem(&["bundle", "-d", "other", "config.yaml"], "holds no readable PEM certificate")]
#[case::no_file(&["print", "nowhere.pem"], "No such file")]
fn what_makes_no_sense_is_refused(#[case] arguments: &[&str], #[case] why: &str) {
    let home = Home::new();
    done(&home, &["make", "-d", "made"]);
    home.configure(&json!({}));
    let (code, _, complained) = certs(&home, arguments);
    assert_eq!(code, Some(1));
    assert_eq!(complained.matches(why).count(), 1, "{complained}");
    assert!(!home.path("other").exists());
}

#[rstest]
#[case::nowhere(&["make"])]
#[case::twice(&["make", "-d", "made", "-c", "config.yaml"])]
#[case::no_name(&["make", "-d", "made", "-n", "no name"])]
#[case::nothing(&["print"])]
fn a_command_line_that_cannot_be_used_is_refused(#[case] arguments: &[&str]) {
    assert_eq!(certs(&Home::new(), arguments).0, Some(2));
}
