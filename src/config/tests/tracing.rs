//! Where traces go: the section and the environment variables of OpenTelemetry together.

use std::collections::HashMap;

use rstest::rstest;

use super::*;
use crate::config::notes::Notes;
use crate::observe::traces::{Compression, Sampler, Settings};

/// What a section and variables mean, the problems and the warnings.
fn read(section: &str, variables: &[(&str, &str)]) -> (Option<Settings>, Vec<String>, Vec<String>) {
    let text = format!("{HEAD}tracing: {section}\n");
    let loaded = parse(&text, "config.yaml").into_result().unwrap();
    let mut notes = Notes::new(loaded.places);
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let lookup = |name: &str| variables.get(name).map(|text| (*text).to_owned());
    let found = notes.tracing(&loaded.file.tracing, &lookup);
    let said = |problems: &[Problem]| {
        let said = problems.iter();
        said.map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect()
    };
    (found, said(&notes.problems), said(&notes.warnings))
}

fn settings(section: &str, variables: &[(&str, &str)]) -> Settings {
    let (found, problems, warnings) = read(section, variables);
    assert_eq!((&problems[..], &warnings[..]), (&[][..], &[][..]));
    found.expect("traces are sent")
}

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";

#[rstest]
#[case::nothing("{}", &[])]
#[case::disabled("{otlp: {}}", &[("OTEL_SDK_DISABLED", "TRUE")])]
#[case::no_exporter("{}", &[("OTEL_TRACES_EXPORTER", "none"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")])]
#[case::an_empty_variable("{}", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")])]
fn no_traces_are_sent(#[case] section: &str, #[case] variables: &[(&str, &str)]) {
    let (found, problems, warnings) = read(section, variables);
    assert_eq!((found, problems.len(), warnings.len()), (None, 0, 0));
}

#[test]
fn the_defaults_are_those_of_opentelemetry() {
    let found = settings("{otlp: {}}", &[]);
    assert_eq!(found.endpoint, "http://localhost:4318/v1/traces");
    assert_eq!(found.timeout, Duration::from_secs(10));
    assert_eq!(
        (found.batch_max_size, found.queue_size, found.batch_max_wait),
        (512, 2048, Duration::from_secs(5))
    );
    let sampler = Sampler {
        parent_based: true,
        ratio: 1.0,
    };
    assert_eq!(
        (found.sampler, found.compression, found.service_name),
        (sampler, Compression::Off, None)
    );
}

#[rstest]
#[case::as_it_is("{otlp: {endpoint: 'https://c.example/in'}}", &[], "https://c.example/in")]
#[case::without_a_path("{otlp: {endpoint: 'https://c.example'}}", &[], "https://c.example/v1/traces")]
#[case::a_base("{}", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c.example/otlp/")], "https://c.example/otlp/v1/traces")]
#[case::that_of_traces("{}", &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c.example/t")], "https://c.example/t")]
#[case::that_of_traces_before_the_base("{}", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://other"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c.example")], "https://c.example/")]
#[case::a_key_before_a_variable("{otlp: {endpoint: 'https://c.example/in'}}", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://other")], "https://c.example/in")]
fn an_endpoint_is_found(
    #[case] section: &str,
    #[case] variables: &[(&str, &str)],
    #[case] expected: &str,
) {
    assert_eq!(settings(section, variables).endpoint, expected);
}

#[rstest]
#[case::ratio_alone("{otlp: {samplerRatio: 0.25}}", &[], (true, 0.25))]
#[case::key("{otlp: {sampler: traceidratio, samplerRatio: 0.5}}", &[(SAMPLER, "always_off")], (false, 0.5))]
#[case::key_and_variable("{otlp: {sampler: parentbased_traceidratio}}", &[(RATIO, "0.1")], (true, 0.1))]
#[case::variables("{otlp: {}}", &[(SAMPLER, "traceidratio"), (RATIO, "0.1")], (false, 0.1))]
#[case::a_part_of_all("{otlp: {}}", &[(SAMPLER, "parentbased_traceidratio")], (true, 1.0))]
#[case::no_ratio_taken("{otlp: {}}", &[(SAMPLER, "always_off"), (RATIO, "0.1")], (false, 0.0))]
#[case::out_of_range("{otlp: {}}", &[(SAMPLER, "traceidratio"), (RATIO, "7")], (false, 1.0))]
fn a_sampler_is_found(
    #[case] section: &str,
    #[case] variables: &[(&str, &str)],
    #[case] (parent_based, ratio): (bool, f64),
) {
    let expected = Sampler {
        parent_based,
        ratio,
    };
    assert_eq!(settings(section, variables).sampler, expected);
}

#[test]
fn variables_say_what_no_key_does() {
    let found = settings(
        "{otlp: {batchMaxSize: 10}}",
        &[
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "20"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "20"),
            ("OTEL_SERVICE_NAME", "gate"),
        ],
    );
    assert_eq!(
        (found.timeout, found.batch_max_wait),
        (Duration::from_secs(3), Duration::from_millis(100))
    );
    assert_eq!((found.batch_max_size, found.queue_size), (10, 20));
    assert_eq!(found.compression, Compression::Gzip);
    assert_eq!(found.ca_file.as_deref(), Some("/ca.pem".as_ref()));
    assert_eq!(found.service_name.as_deref(), Some("gate"));
}

#[rstest]
#[case::protocol(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "tracing.otlp: OTEL_EXPORTER_OTLP_PROTOCOL is `grpc`, which is not used: traces are sent as `http/protobuf`")]
#[case::number(&[("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10s")], "tracing.otlp: OTEL_EXPORTER_OTLP_TRACES_TIMEOUT is `10s`, which is not used: invalid digit found in string")]
#[case::sampler(&[(SAMPLER, "jaeger_remote")], "tracing.otlp: OTEL_TRACES_SAMPLER is `jaeger_remote`, which is not used: it is none that is known here")]
#[case::compression(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")], "tracing.otlp: OTEL_EXPORTER_OTLP_COMPRESSION is `zstd`, which is not used: `gzip` and `none` are known")]
#[case::plain_http(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")], "tracing.otlp: OTEL_EXPORTER_OTLP_ENDPOINT is plain HTTP, which shows who applies what to the network")]
fn what_a_variable_says_in_vain_is_told(#[case] variables: &[(&str, &str)], #[case] told: &str) {
    let (found, problems, warnings) = read("{otlp: {}}", variables);
    assert!(found.is_some());
    assert_eq!((problems.len(), &warnings[..]), (0, &[told.to_owned()][..]));
}

#[rstest]
#[case::plain_http("{endpoint: 'http://collector:4318'}", &[], "tracing.otlp.endpoint: plain HTTP beyond loopback shows who applies what to the network; use https, or set `allowPlainHttp: true`")]
#[case::no_url("{}", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")], "tracing.otlp: OTEL_EXPORTER_OTLP_ENDPOINT is no whole URL, such as `https://collector:4318`")]
#[case::port("{}", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:80000")], "tracing.otlp: OTEL_EXPORTER_OTLP_ENDPOINT is no whole URL, such as `https://collector:4318`")]
#[case::endpoint_port("{endpoint: 'http://127.0.0.1:80000'}", &[], "tracing.otlp.endpoint: no URL: port 80000 is not among 0 to 65535")]
#[case::ratio("{sampler: always_on, samplerRatio: 0.5}", &[], "tracing.otlp.samplerRatio: the sampler takes no ratio")]
#[case::header("{headers: {'x y': a}}", &[], "tracing.otlp.headers[\"x y\"]: `x y` is no header name")]
#[case::unset("{headers: {x: '${KEY}'}}", &[], "tracing.otlp.headers.x: the environment variable `KEY` is not set")]
#[case::twice("{headers: {x: a}, headerFiles: {X: /key}}", &[], "tracing.otlp.headerFiles.X: `x` is among `headers` already")]
#[case::two_credentials("{bearerTokenFile: /t, basic: {username: u, passwordFile: /p}}", &[], "tracing.otlp.basic: give only one of `basic` and `bearerTokenFile`")]
#[case::queue("{queueSize: 10}", &[], "tracing.otlp.batchMaxSize: a batch of 512 spans needs a `queueSize` as large")]
fn what_cannot_be_meant_is_a_problem(
    #[case] otlp: &str,
    #[case] variables: &[(&str, &str)],
    #[case] problem: &str,
) {
    let (_, problems, _) = read(&format!("{{otlp: {otlp}}}"), variables);
    assert_eq!(problems, [problem]);
}
