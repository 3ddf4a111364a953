//! Sinks of audit records: what is read, what is refused.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rstest::rstest;

use super::*;
use crate::config::resolve::{self, Settings};
use crate::observe::audit::{self, Form, Format, Target};

/// Resolves a configuration with these sinks. `DIR` stands for a directory that is there.
fn resolved(sinks: &str, directory: &Path) -> Result<Settings, Problems> {
    let sinks = sinks.replace("DIR", &directory.display().to_string());
    let text = format!("{HEAD}audit:\n  sinks:\n{sinks}");
    parse(&text, "config.yaml").then(|loaded| resolve::resolve(loaded, SystemTime::now()))
}

fn targets(sinks: &str) -> Vec<Target> {
    let directory = tempfile::tempdir().unwrap();
    match resolved(sinks, directory.path()) {
        Ok(settings) => settings.audit.sinks,
        Err(problems) => panic!("{problems}"),
    }
}

#[test]
fn a_file_has_the_defaults_of_the_documentation() {
    let found = targets("  - file: {path: DIR/audit.log}\n");
    let [Target::File(file)] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(file.mode, audit::Mode::Blocking);
    let rotation = &file.rotation;
    assert_eq!(
        (rotation.max_size, rotation.every),
        (Some(100_000_000), None)
    );
    let keep = &rotation.keep;
    assert_eq!(
        (keep.max_backups, keep.max_age, keep.form),
        (Some(10), None, Form::Gzip)
    );
}

#[test]
fn zero_is_no_limit() {
    let found = targets(
        "  - file: {path: DIR/a, maxSize: 0, maxBackups: 0, maxAge: 30d, compress: false}\n",
    );
    let [Target::File(file)] = found.as_slice() else {
        panic!("{found:?}");
    };
    let keep = &file.rotation.keep;
    assert_eq!(
        (file.rotation.max_size, keep.max_backups, keep.form),
        (None, None, Form::Plain)
    );
    assert_eq!(keep.max_age, Some(Duration::from_secs(30 * 86_400)));
}

#[test]
fn a_receiver_is_called_by_its_host_unless_it_has_a_name() {
    let found = targets(
        "  - http: {url: 'https://loki:3100/loki/api/v1/push?x=s3cret', format: loki}\n  - http: {url: https://loki:3100/b, name: b}\n",
    );
    let names: Vec<_> = found.iter().map(Target::name).collect();
    assert_eq!(names, ["loki:3100", "b"]);
    let Target::Http(loki) = &found[0] else {
        panic!("{found:?}");
    };
    let labels = [("job".to_owned(), "dstack-admission".to_owned())].into();
    assert_eq!(loki.shipping.format, Format::Loki { labels });
    assert_eq!(loki.mode, audit::Mode::Batch);
}

#[rstest]
#[case::no_directory(
    "  - file: {path: DIR/no/audit.log}\n",
    "audit.sinks[0].file.path: DIR/no/audit.log: DIR/no: No such file or directory (os error 2)"
)]
#[case::a_directory(
    "  - file: {path: DIR}\n",
    "audit.sinks[0].file.path: DIR: is a directory"
)]
#[case::no_time(
    "  - file: {path: DIR/a, rotateEvery: 0s}\n",
    "audit.sinks[0].file.rotateEvery: an age of 0s begins a file for each record"
)]
#[case::nothing("  - {}\n", "audit.sinks[0]: give one of `file`, `stdout` and `http`")]
#[case::two(
    "  - {stdout: {}, file: {path: DIR/a}}\n",
    "audit.sinks[0]: give one of `file`, `stdout` and `http`"
)]
#[case::one_file_twice(
    "  - file: {path: DIR/a}\n  - file: {path: DIR/a}\n",
    "audit.sinks[1]: another sink writes to DIR/a already"
)]
#[case::one_name_twice(
    "  - http: {url: https://a/1}\n  - http: {url: https://a/2}\n",
    "audit.sinks[1]: a sink is called `a` already: give each a `name` of its own"
)]
#[case::plain_http(
    "  - http: {url: http://loki.example.com/}\n",
    "audit.sinks[0].http.url: plain HTTP beyond loopback shows who applies what to the network; use https, or set `allowPlainHttp: true`"
)]
#[case::port(
    "  - http: {url: 'https://a:99999/'}\n",
    "audit.sinks[0].http.url: no URL: port 99999 is not among 0 to 65535"
)]
#[case::half_a_certificate(
    "  - http: {url: https://a/, clientCertFile: x}\n",
    "audit.sinks[0].http.clientCertFile: needs `clientKeyFile` beside it"
)]
#[case::labels_of_lines(
    "  - http: {url: https://a/, labels: {a: b}}\n",
    "audit.sinks[0].http.labels: labels belong to `format: loki`"
)]
#[case::label(
    "  - http: {url: https://a/, format: loki, labels: {a-b: c}}\n",
    "audit.sinks[0].http.labels.a-b: a label's name has letters, digits and `_`, and begins with no digit"
)]
#[case::small_spool(
    "  - http: {url: https://a/, spool: {maxSize: 1k}}\n",
    "audit.sinks[0].http.spool.maxSize: a spool needs 1MiB at least"
)]
fn each_mistake_is_named_with_its_place(#[case] sinks: &str, #[case] expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let Err(problems) = resolved(sinks, directory.path()) else {
        panic!("{sinks} is taken");
    };
    let found = problems.to_string();
    let found = found.replace(&directory.path().display().to_string(), "DIR");
    let (place, found) = found.split_once(": ").unwrap();
    assert!(place.starts_with("config.yaml:"), "{place}");
    assert_eq!(found, expected);
}

#[test]
fn the_example_of_the_documentation_is_read() {
    let page = include_str!("../../../docs/audit-sinks.md");
    let example = page.split("```yaml\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let loaded = load(&format!("{HEAD}{example}"));
    assert_eq!(loaded.file.audit.sinks.len(), 3);
}
