//! The shapes of well-known tokens and keys, wherever in a text they stand. The built-in policy
//! `plain-secrets-in-env` denies the same ones; a test holds the two against each other.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use regex::Regex;

/// One of these stands in every text that holds a secret of a known shape. Looking for them costs
/// a fraction of what the expressions cost.
const MARKS: &[&str] = &[
    "hf_",
    "api_org_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "gldt-",
    "glrt-",
    "glcbt-",
    "glptt-",
    "npm_",
    "pypi-",
    "dckr_",
    "xox",
    "hooks.slack.com",
    "akia",
    "asia",
    "aiza",
    "ya29.",
    "gocspx-",
    "dop_v1_",
    "hvs.",
    "hvb.",
    "sg.",
    "accountkey=",
    "sharedaccesskey=",
    "sk-",
    "sk_",
    "rk_",
    "nvapi-",
    "gsk_",
    "xai-",
    "pplx-",
    "r8_",
    "rpa_",
    "wandb_v1_",
    "lsv2_",
    "private key",
    "age-secret-key-1",
    "eyj",
    "bearer",
    "basic",
    "authorization",
    "://",
    "password",
    "passwd",
    "pwd",
    "api_key",
    "apikey",
    "api-key",
    "secret",
    "access_key",
    "accesskey",
    "access-key",
    "token",
];

/// What is a secret as a whole.
const TOKENS: &str = r"(?x)
    # Model hubs, code forges and package registries.
    \b( hf_[A-Za-z0-9]{20,} | api_org_[A-Za-z0-9]{20,} | gh[pousr]_[A-Za-z0-9]{30,}
      | github_pat_[A-Za-z0-9_]{30,} | gl(?:pat|dt|rt|cbt|ptt)-[A-Za-z0-9_-]{16,}
      | npm_[A-Za-z0-9]{30,} | pypi-[A-Za-z0-9_-]{40,} | dckr_[a-z]+_[A-Za-z0-9_-]{20,}
      | xox[abeoprs]-[A-Za-z0-9-]{10,} | hooks[.]slack[.]com/services/T[A-Za-z0-9/]*
    # Clouds.
      | (?:AKIA|ASIA)[A-Z0-9]{16}\b | AIza[A-Za-z0-9_-]{30,} | ya29[.][A-Za-z0-9_-]{20,}
      | GOCSPX-[A-Za-z0-9_-]{20,} | dop_v1_[a-f0-9]{40,} | hv[sb][.][A-Za-z0-9_-]{20,}
      | SG[.][A-Za-z0-9_-]{16,}[.][A-Za-z0-9_-]{16,}
    # Model providers and payments.
      | sk-[A-Za-z0-9]{20,} | sk-(?:proj|ant|or|svcacct|admin|lf)-[A-Za-z0-9_-]{20,}
      | [sr]k_(?:live|test)_[A-Za-z0-9]{16,} | nvapi-[A-Za-z0-9_-]{20,} | gsk_[A-Za-z0-9]{20,}
      | (?:xai|pplx)-[A-Za-z0-9]{20,} | (?:r8|rpa)_[A-Za-z0-9]{20,}
      | wandb_v1_[A-Za-z0-9_]{20,} | lsv2_(?:pt|sk)_[A-Za-z0-9_]{20,}
    # Signed tokens and keys.
      | eyJ[A-Za-z0-9_-]{10,}[.]eyJ[A-Za-z0-9_-]{10,}[.][A-Za-z0-9_-]*
      | AGE-SECRET-KEY-1[A-Z0-9]* )
    | ( -----BEGIN\ [A-Z0-9\ ]*PRIVATE\ KEY (?s:.*?) (?: -----END\ [A-Z0-9\ ]*PRIVATE\ KEY-----|\z ) )";

/// What is a secret for what stands before it, which stays.
const NAMED: &str = r#"(?xi)
    \b(?:Account|SharedAccess)Key=([A-Za-z0-9+/]{20,}=*)
    | \b(?:Bearer|Basic)\ ([A-Za-z0-9._~+/-]{16,}=*)
    | \bauthorization["']?\s*[:=]\s*["']?(?:[A-Za-z]+\s+)?([^\s"'$<{]{6,})
    # NAME=value and "name": "value", as in connection strings, flags and assignments in a shell.
    | (?: passw(?:or)?d | pwd | api[_-]?key | (?:secret|access)[_-]?key(?:[_-]?id)? | client[_-]?secret
        | (?:access|auth|api|bot|hub|hf|gh|github|gitlab)[_-]?token )
      (?: =["']? | "\s*:\s*" ) ([^\s;&,"'$<{/][^\s;&,"'$<{]{5,})
    | \baws_secret_access_key=["']?([A-Za-z0-9+/]{40})
    | --(?:password|token|api-key|secret)\s+["']?([^\s"'$<{/-][^\s"'$<{]{5,})"#;

/// A password in a URL, or a token in place of a user name.
const USERINFO: &str = r#"://([^/\s:@"'${}<>*]*:[^/\s@"'${}<>*]{3,}|[^/\s:@"'${}<>*]{20,})@"#;

static SHAPES: LazyLock<Option<Shapes>> = LazyLock::new(|| Shapes::compile().ok());

struct Shapes {
    marks: AhoCorasick,
    expressions: [Regex; 3],
}

impl Shapes {
    fn compile() -> Result<Self, String> {
        let marks = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(MARKS);
        let regex = |text| Regex::new(text).map_err(|e| e.to_string());
        Ok(Self {
            marks: marks.map_err(|e| e.to_string())?,
            expressions: [regex(TOKENS)?, regex(NAMED)?, regex(USERINFO)?],
        })
    }
}

/// Compiles the expressions, which the first text would else wait for.
///
/// # Errors
/// When they cannot be compiled, which a test rules out.
pub fn warm() -> Result<(), String> {
    match &*SHAPES {
        Some(_) => Ok(()),
        None => Err("the shapes of secrets cannot be compiled".to_owned()),
    }
}

/// Where in a text secrets stand, in order and apart from each other. Without the expressions,
/// every text is one.
pub(super) fn find(text: &str) -> Vec<Range<usize>> {
    let Some(shapes) = &*SHAPES else {
        return std::iter::once(0..text.len()).collect();
    };
    if text.len() < 8 || !shapes.marks.is_match(text) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for expression in &shapes.expressions {
        for captures in expression.captures_iter(text) {
            found.extend(captures.iter().skip(1).flatten().map(|group| group.range()));
        }
    }
    found.sort_unstable_by_key(|range| range.start);
    let mut apart: Vec<Range<usize>> = Vec::new();
    for range in found {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_expressions_compile() {
        Shapes::compile().map(|_| ()).unwrap();
    }

    /// The variables of one case of the policy's own suite.
    fn variables(case: &str) -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/plugins/library/plain-secrets-in-env.test.yaml");
        let suite: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = suite["cases"].as_array().unwrap();
        let case = cases.iter().find(|found| found["name"] == case).unwrap();
        let env = case["spec"]["configuration"]["env"].as_object().unwrap();
        env.values()
            .map(|value| value.as_str().unwrap().to_owned())
            .collect()
    }

    #[rstest]
    #[case("tokens of well-known shapes under harmless names")]
    #[case("secrets inside of other things under harmless names")]
    fn what_the_policy_denies_by_its_shape_is_found(#[case] case: &str) {
        let missed: Vec<_> = variables(case)
            .into_iter()
            .filter(|text| find(text).is_empty())
            .collect();
        assert!(missed.is_empty(), "{missed:?}");
    }

    #[rstest]
    #[case("values that are none")]
    #[case("references in every form that dstack fills in")]
    fn what_the_policy_takes_for_none_is_left_alone(#[case] case: &str) {
        let wrong: Vec<_> = variables(case)
            .into_iter()
            .filter(|text| !find(text).is_empty())
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[rstest]
    #[case("export HF_TOKEN=hunter2hunter2", "export HF_TOKEN=*")]
    #[case(
        "curl -H 'Authorization: Bearer abcdef1234567890ab' x",
        "curl -H 'Authorization: Bearer *' x"
    )]
    #[case(
        "curl -H \"authorization: token abcdefg\" x",
        "curl -H \"authorization: token *\" x"
    )]
    #[case(
        "git clone https://me:hunter2@host/x.git a",
        "git clone https://*@host/x.git a"
    )]
    #[case(
        "git clone https://ghp_FAKEfakeFAKEfakeFAKEfakeFAKEfakeFAKE@host/x",
        "git clone https://*@host/x"
    )]
    #[case("login --password hunter2hunter2 -u me", "login --password * -u me")]
    #[case(
        "login --token $HF_TOKEN --max-tokens 4096",
        "login --token $HF_TOKEN --max-tokens 4096"
    )]
    #[case(
        "aws configure set aws_secret_access_key=wJalrXUtnFEMIxK7MDENGxbPxRfiCYEXAMPLEKEY",
        "aws configure set aws_secret_access_key=*"
    )]
    #[case(
        "echo '-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----' > k",
        "echo '*' > k"
    )]
    #[case("echo '-----BEGIN RSA PRIVATE KEY-----\nabc", "echo '*")]
    #[case("a hf_FAKEfakeFAKEfakeFAKEfake, hf_FAKEfakeFAKEfakeFAKEfake", "a *, *")]
    #[case("é hf_FAKEfakeFAKEfakeFAKEfake é", "é * é")]
    #[case(
        "python train.py --tokens 5 --passwordless",
        "python train.py --tokens 5 --passwordless"
    )]
    fn only_the_secret_part_of_a_command_is_taken(#[case] text: &str, #[case] expected: &str) {
        let mut left = text.to_owned();
        for range in find(text).into_iter().rev() {
            left.replace_range(range, "*");
        }
        assert_eq!(left, expected);
    }
}
