//! dstack's units, globs and image references.

use rstest::rstest;

use super::super::holds;

#[rstest]
#[case("seconds('90s') == 90 && seconds('30m') == 1800 && seconds('8h') == 28800")]
#[case("seconds('1d') == 86400 && seconds('2w') == 1209600 && seconds('1 d') == 86400")]
#[case("seconds('90') == 90 && seconds(90) == 90 && seconds(' 90 ') == 90 && seconds(0) == 0")]
#[case("isUnlimited(seconds('off')) && isUnlimited(seconds(-1)) && isUnlimited(seconds('-1'))")]
#[case("isUnlimited(seconds('99999999999999999999w')) && !isUnlimited(seconds('1w'))")]
#[case("seconds('off') > seconds('52w')")]
#[case("gigabytes('512MB') == 0.5 && gigabytes('16GB') == 16.0 && gigabytes('1TB') == 1024.0")]
#[case("gigabytes('1 tb') == 1024.0 && gigabytes('1.5gb') == 1.5 && gigabytes('24') == 24.0")]
#[case("gigabytes(24) == 24.0 && gigabytes(0.5) == 0.5 && type(gigabytes(1)) == double")]
#[case(
    "isUnlimited(1.7976931348623157e308) && isUnlimited(9223372036854775807) && !isUnlimited(5)"
)]
#[case("isUnlimited(gigabytes(9223372036854775807)) && !isUnlimited(0.5)")]
#[case("durationText(259200) == '3d' && durationText(5400) == '90m' && durationText(45) == '45s'")]
#[case("durationText(93600) == '1d 2h' && durationText(0) == '0s' && durationText(86400) == '1d'")]
#[case(
    "durationText(13600) == '3h 46m 40s' && durationText(7200) == '2h' && durationText(100) == '1m 40s'"
)]
#[case(
    "durationText(90000) == '1d 1h' && durationText(86401) == '1d 1s' && durationText(9000) == '2h 30m'"
)]
#[case("durationText(seconds('off')) == 'no limit' && durationText(-1) == 'no limit'")]
fn units(#[case] expression: &str) {
    assert_eq!(holds(expression), Ok(true), "{expression}");
}

#[rstest]
#[case("seconds('')")]
#[case("seconds('1y')")]
#[case("seconds('1.5h')")]
#[case("seconds('h')")]
#[case("seconds('--1')")]
#[case("seconds('1d ')")]
#[case("seconds('é')")]
#[case("gigabytes('')")]
#[case("gigabytes('GB')")]
#[case("gigabytes('1KB')")]
#[case("gigabytes('inf')")]
#[case("gigabytes('-1GB')")]
#[case("gigabytes('1..2GB')")]
fn what_is_no_unit_is_an_error(#[case] expression: &str) {
    let message = holds(&format!("{expression} == 1")).unwrap_err();
    assert!(message.contains("(): not a "), "{expression}: {message}");
}

#[rstest]
#[case("ghcr.io/acme/*", "ghcr.io/acme/train:1", true)]
#[case("ghcr.io/acme/*", "ghcr.io/acme/", true)]
#[case("ghcr.io/acme/*", "ghcr.io/other/train", false)]
#[case("ghcr.io/*/train:*", "ghcr.io/a/b/train:1", true)]
#[case("*", "", true)]
#[case("", "", true)]
#[case("", "a", false)]
#[case("?", "é", true)]
#[case("?", "", false)]
#[case("p?.*xlarge", "p4.24xlarge", true)]
#[case("p?.*xlarge", "p4d.24xlarge", false)]
#[case("p[45].*", "p5.48xlarge", true)]
#[case("p[3-5].*", "p4.48xlarge", true)]
#[case("p[!3-5].*", "p4.48xlarge", false)]
#[case("p[^3-5].*", "p6.48xlarge", true)]
#[case("[]a]", "]", true)]
#[case("[a-]", "-", true)]
#[case("[a", "[a", true)]
#[case("[!]", "[!]", true)]
#[case("H100", "h100", false)]
#[case("!a", "!a", true)]
#[case("a\\\\*", "a*", true)]
#[case("a\\\\*", "ab", false)]
#[case("*a*b*", "xxaxxbxx", true)]
#[case("*ab", "aab", true)]
#[case("*.txt", "a.txt.gz", false)]
fn globs(#[case] pattern: &str, #[case] text: &str, #[case] expected: bool) {
    let expression = format!("'{text}'.globMatches('{pattern}')");
    assert_eq!(holds(&expression), Ok(expected), "{expression}");
    let expression = format!("'{text}'.globMatches(['no', '{pattern}'])");
    assert_eq!(holds(&expression), Ok(expected), "{expression}");
}

#[test]
fn no_pattern_matches_nothing_and_a_wrong_one_is_an_error() {
    assert_eq!(holds("name.globMatches([])"), Ok(false));
    assert_eq!(holds("'b'.globMatches(params.allow)"), Ok(true));
    let message = holds("name.globMatches([1])").unwrap_err();
    assert!(message.contains("patterns, which are strings"), "{message}");
}

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[rstest]
#[case("ubuntu", "docker.io", "library/ubuntu", "latest", "")]
#[case("ubuntu:22.04", "docker.io", "library/ubuntu", "22.04", "")]
#[case("acme/train", "docker.io", "acme/train", "latest", "")]
#[case("docker.io/ubuntu", "docker.io", "library/ubuntu", "latest", "")]
#[case("index.docker.io/ubuntu", "docker.io", "library/ubuntu", "latest", "")]
#[case("GHCR.IO/acme/train:1", "ghcr.io", "acme/train", "1", "")]
#[case("localhost/train", "localhost", "train", "latest", "")]
#[case("localhost:5000", "docker.io", "library/localhost", "5000", "")]
#[case(
    "localhost:5000/a/b/c:v1.0-rc_1",
    "localhost:5000",
    "a/b/c",
    "v1.0-rc_1",
    ""
)]
#[case("[::1]:5000/train", "[::1]:5000", "train", "latest", "")]
#[case("a__b/c-d.e--f", "docker.io", "a__b/c-d.e--f", "latest", "")]
#[case("ubuntu@DIGEST", "docker.io", "library/ubuntu", "", DIGEST)]
#[case("ghcr.io/acme/train:1@DIGEST", "ghcr.io", "acme/train", "1", DIGEST)]
fn image_references(
    #[case] image: &str,
    #[case] registry: &str,
    #[case] repository: &str,
    #[case] tag: &str,
    #[case] digest: &str,
) {
    let image = image.replace("DIGEST", DIGEST);
    let mut reference = format!("{registry}/{repository}");
    if !tag.is_empty() {
        reference += &format!(":{tag}");
    }
    if !digest.is_empty() {
        reference += &format!("@{digest}");
    }
    let expression = format!(
        "imageReference('{image}') == {{'registry': '{registry}', 'repository': '{repository}', \
         'tag': '{tag}', 'digest': '{digest}', 'reference': '{reference}'}}"
    );
    assert_eq!(holds(&expression), Ok(true), "{expression}");
    let again = format!("imageReference('{reference}').reference == '{reference}'");
    assert_eq!(holds(&again), Ok(true), "{again}");
}

#[rstest]
#[case("")]
#[case(":1")]
#[case("/ubuntu")]
#[case("ubuntu/")]
#[case("a//b")]
#[case("Ubuntu")]
#[case("acme/Train")]
#[case("Acme/train")]
#[case("ubuntu:")]
#[case("ubuntu:.1")]
#[case("ubuntu:a:b")]
#[case("a___b")]
#[case("a..b/c")]
#[case("-a")]
#[case("a b")]
#[case("${{ secrets.IMAGE }}")]
#[case("ghcr.io:port/a")]
#[case("ghcr..io/a")]
#[case("ubuntu@sha256:abc")]
#[case("ubuntu@md5:0123456789abcdef0123456789abcdef")]
#[case("ubuntu@DIGEST@DIGEST")]
#[case("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")]
fn what_is_no_image_is_an_error(#[case] image: &str) {
    let image = image.replace("DIGEST", DIGEST);
    let message = holds(&format!("imageReference('{image}').tag == ''")).unwrap_err();
    assert!(message.contains("imageReference(): "), "{image}: {message}");
}
