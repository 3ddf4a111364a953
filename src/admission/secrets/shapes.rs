//! The shapes of well-known tokens and keys, wherever in a text they stand. The built-in policy
//! `plain-secrets-in-env` denies the same ones; a test holds the two against each other.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use regex::bytes::{Regex, RegexBuilder};

/// One of these stands in every text that holds a secret of a known shape. Looking for them costs
/// a fraction of what the expressions cost.
const MARKS: &[&str] = &[
    // Tokens that say what they are.
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
    "glrt",
    "glcbt-",
    "glptt-",
    "glft-",
    "gloas-",
    "glagent-",
    "glsoat-",
    "glimt-",
    "glwt-",
    "npm_",
    "pypi-",
    "dckr_",
    "xox",
    "xapp-",
    "hooks.slack.com",
    "api/webhooks/",
    "akia",
    "asia",
    "aiza",
    "ya29.",
    "gocspx-",
    "q~",
    "dop_v1_",
    "hvs.",
    "hvb.",
    "sg.",
    "sk-",
    "sk_",
    "rk_",
    "whsec_",
    "nvapi-",
    "gsk_",
    "xai-",
    "pplx-",
    "r8_",
    "rpa_",
    "fw_",
    "e2b_",
    "pcsk_",
    "wandb_v1_",
    "lsv2_",
    "tskey-",
    ":aa",
    "key-",
    "dapi",
    "shpat_",
    "shpca_",
    "shppa_",
    "shpss_",
    "lin_api_",
    "figd_",
    "glsa_",
    "glc_",
    "pul-",
    ".atlasv1.",
    "dp.",
    "private key",
    "age-secret-key-1",
    "eyj",
    // Names of what is one.
    "bearer",
    "basic",
    "authorization",
    "cookie",
    "://",
    "passw",
    "passphrase",
    "pass=",
    "pwd",
    "api_key",
    "apikey",
    "api-key",
    "secret",
    "access_key",
    "accesskey",
    "access-key",
    "accountkey",
    "_key=",
    "\"key",
    "key=",
    "authkey",
    "auth-key",
    "auth_key",
    "signature=",
    "sig=",
    "credential",
    "token",
    "_auth=",
    "auth\"",
    "auth\\\"",
    // Programs that take one.
    "login",
    "sshpass",
    "mysql",
    "curl",
    "wget",
    "redis-cli",
];

/// What is a secret as a whole.
const TOKENS: &str = r"(?x)
    # Model hubs, code forges and package registries.
    \b( hf_[A-Za-z0-9]{20,} | api_org_[A-Za-z0-9]{20,} | gh[pousr]_[A-Za-z0-9]{30,}
      | github_pat_[A-Za-z0-9_]{30,}
      | gl(?:pat|dt|rtr?|cbt|ptt|ft|oas|agent|soat|imt|wt)-[A-Za-z0-9_.-]{16,}
      | npm_[A-Za-z0-9]{30,} | pypi-[A-Za-z0-9_-]{40,} | dckr_[a-z]+_[A-Za-z0-9_-]{20,}
      | xox[abeoprs]-[A-Za-z0-9-]{10,} | xapp-[0-9]-[A-Za-z0-9-]{20,}
      | hooks[.]slack[.]com/services/T[A-Za-z0-9/]* | lin_api_[A-Za-z0-9]{30,}
      | figd_[A-Za-z0-9_-]{30,} | [0-9]{8,10}:AA[A-Za-z0-9_-]{32,}
    # Clouds and what runs on them.
      | (?:AKIA|ASIA)[A-Z0-9]{16}\b | AIza[A-Za-z0-9_-]{30,} | ya29[.][A-Za-z0-9_-]{20,}
      | GOCSPX-[A-Za-z0-9_-]{20,} | [A-Za-z0-9_.~-]{3}[0-9]Q~[A-Za-z0-9_.~-]{31,}
      | dop_v1_[a-f0-9]{40,} | hv[sb][.][A-Za-z0-9_-]{20,} | tskey-[a-z]+-[A-Za-z0-9-]{10,}
      | SG[.][A-Za-z0-9_-]{16,}[.][A-Za-z0-9_-]{16,} | key-[a-f0-9]{32}\b | dapi[a-f0-9]{32}\b
      | shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32} | gl(?:sa|c)_[A-Za-z0-9+/=_]{30,} | pul-[a-f0-9]{40}\b
      | [A-Za-z0-9]{14}[.]atlasv1[.][A-Za-z0-9_-]{40,}
      | dp[.](?:pt|st|ct|sa|scim|audit)[.][A-Za-z0-9._-]{40,}
    # Model providers and payments.
      | sk-[A-Za-z0-9]{20,} | sk-(?:proj|ant|or|svcacct|service|admin|None|lf)-[A-Za-z0-9_-]{20,}
      | [sr]k_(?:live|test)_[A-Za-z0-9]{16,} | whsec_[A-Za-z0-9+/=]{20,}
      | nvapi-[A-Za-z0-9_-]{20,} | gsk_[A-Za-z0-9]{20,} | (?:xai|pplx)-[A-Za-z0-9]{20,}
      | (?:r8|rpa|fw)_[A-Za-z0-9]{20,} | e2b_[a-f0-9]{40}\b | pcsk_[A-Za-z0-9_]{40,}
      | wandb_v1_[A-Za-z0-9_]{20,} | lsv2_(?:pt|sk)_[A-Za-z0-9_]{20,}
    # Signed tokens and keys.
      | eyJ[A-Za-z0-9_-]{10,}[.]eyJ[A-Za-z0-9_-]{10,}[.][A-Za-z0-9_-]*
      | AGE-SECRET-KEY-1[A-Z0-9]* )
    | \bapi/webhooks/[0-9]+/([A-Za-z0-9_-]{30,})
    | ( -----BEGIN\ [A-Z0-9\ ]*PRIVATE\ KEY (?s:.*?)
        (?: -----END\ [A-Z0-9\ ]*PRIVATE\ KEY(?:\ BLOCK)?-----|\z ) )";

/// What is a secret for the name that stands before it, which stays. `NAME` and `VALUE` stand for
/// the parts below.
const NAMED: &str = r#"(?xi)
    \b(?:Account|SharedAccess)Key=([A-Za-z0-9+/]{20,}=*)
    | \b(?:Bearer|Basic)\ ([A-Za-z0-9._~+/-]{16,}=*)
    | \bauthorization\\?["']?\s*[:=]\s*\\?["']?(?:[A-Za-z]+\s+)?([^\s"'$<{]{6,})
    | \bcookie:\s*([^"'\n$]{8,})
    # Headers.
    | \b(?:[a-z]+-)+(?:key|token|secret|password):\s*VALUE
    # Assignments in connection strings, flags and programs.
    | NAME(?: =VALUE | \s+=\s+QUOTED )
    | (?:^|[\s,(.])(?:token|secret)(?: =VALUE | \s+=\s+QUOTED )
    # Members of JSON, as a text in a text too.
    | (?:NAME|["'](?:token|secret|auth|identitytoken))\\?["']\s*:\s*QUOTED
    | ["']key\\?["']\s*:\s*\\?["']([A-Za-z0-9+/=]{24,})
    | \b_auth=([A-Za-z0-9+/]{8,}=*)
    # Flags and settings with their value apart.
    | --(?:[a-z]+-)?(?:password|passwd|passphrase|api[_-]?key|(?:secret|access)[_-]?key|auth-?key)\s+VALUE
    | --(?:(?:access|auth|api|bot|hf|hub|git(?:hub|lab)|registry|session|user|vault)-)?token\s+VALUE
    | --(?:client-|token-)?secret\s+VALUE
    | \b(?:api[_-]?key|authtoken|aws_secret_access_key|aws_session_token)\s+([A-Za-z0-9+/_=-]{20,})
    # In the query of a URL.
    | [?&](?:sig|token|key|secret|auth|[a-z_-]*(?:signature|token|api[_-]?key))=([^\s&"'$<{]{8,})
    # What programs take by position or a letter.
    | \blogin\b[^\n;|&]*?\s-p\s*VALUE
    | \bsshpass\s+-p\s*VALUE
    | \bredis-cli\b[^\n;|&]*?\s(?:-a|--pass)\s+VALUE
    | \bmysql[a-z]*\b[^\n;|&]*?\s-p([^\s"'$<{]{4,})
    | \b(?:curl|wget)\b[^\n;|]*?\s(?:-u|--user|--proxy-user)[\s=]*["']?[^\s:"'$]+:([^\s"'$<{]{3,})
    | \bwandb\s+login\s(?:[^\n;|&]*?\s)?([A-Za-z0-9]{30,})
    | \blogin\s+\S+\s+password\s+([^\s"'$<{]{3,})"#;

/// What is called a secret in any spelling. More may stand before it.
const NAME: &str = r#"(?: passw(?:or)?d | passphrase | pwd | api[_-]?key
      | (?:secret|access|account|encryption|master|signing)[_-]?key(?:[_-]?id)? | client[_-]?secret
      | (?:access|auth|api|bot|hub|hf|gh|github|gitlab|session|security|refresh|vault)[_-]?token )"#;

/// A value, in quotes or up to what ends a word. A variable, a reference and a path are none.
const VALUE: &str = r#"(?: \\?"([^"\\\n$<{]{6,}) | '([^'\n$<{]{6,})
      | ([^\s;&,"'$<{/\\][^\s;&,"'$<{\\]{5,}) )"#;
const QUOTED: &str = r#"\\?["']([^"'\\\n$<{]{6,})"#;

/// Variables of an environment, in capitals, whose name ends as that of a secret, and lines of YAML.
const VARIABLES: &str = r#"(?xm)
    \b(?:[A-Z0-9]+_)*(?:PASS|SECRET|TOKEN|CREDENTIALS?)=VALUE
    | \b(?:[A-Z0-9]+_)+KEY=["']?([A-Za-z0-9+/]{20,}=*)
    | ^[\ \t-]*(?i:[a-z_-]*(?:NAME|secret))\s*:\s+
      (?: ["']([^"'\n$<{]{6,}) | ([^\s"'$<{/\[|>][^\s"'$<{]{5,}) )["']?\s*$
    | ^[\ \t-]*(?i:[a-z_-]*(?:NAME|secret|token))\s*:\s*[|>][0-9+-]*[\ \t]*\n\s+([^\s"'$<{][^\n$<{]{5,})
    | ^[\ \t-]*(?i:token)\s*:\s+["']?([^\s"'$<{/\[|>][^\s"'$<{]{5,})["']?\s*$"#;

/// A password in a URL, or a token in place of a user name.
const USERINFO: &str = r#"://([^/\s:@"'${}<>*]*:[^/\s"'${}<>*]{3,}|[^/\s:@"'${}<>*]{20,})@"#;

static SHAPES: LazyLock<Option<Shapes>> = LazyLock::new(|| Shapes::compile().ok());

struct Shapes {
    marks: AhoCorasick,
    expressions: [Regex; 4],
}

impl Shapes {
    fn compile() -> Result<Self, String> {
        let marks = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(MARKS);
        let regex = |text: &str| {
            let parts = [("NAME", NAME), ("QUOTED", QUOTED), ("VALUE", VALUE)];
            let text = parts.iter().fold(text.to_owned(), |text, (name, part)| {
                text.replace(name, part)
            });
            // What stands around a secret is ASCII, and classes of all of Unicode take a megabyte.
            let built = RegexBuilder::new(&text).unicode(false).build();
            built.map_err(|e| e.to_string())
        };
        Ok(Self {
            marks: marks.map_err(|e| e.to_string())?,
            expressions: [
                regex(TOKENS)?,
                regex(NAMED)?,
                regex(VARIABLES)?,
                regex(USERINFO)?,
            ],
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

/// The password of a URL.
pub(super) fn password(text: &str) -> Option<&str> {
    let shapes = SHAPES.as_ref()?;
    let [_, _, _, userinfo] = &shapes.expressions;
    let group = userinfo.captures(text.as_bytes())?.get(1)?;
    let (_, password) = text.get(group.range())?.split_once(':')?;
    Some(password)
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
        for captures in expression.captures_iter(text.as_bytes()) {
            found.extend(captures.iter().skip(1).flatten().map(|group| group.range()));
        }
    }
    // No character is torn, whatever an expression took of it.
    for range in &mut found {
        *range = text.floor_char_boundary(range.start)..text.ceil_char_boundary(range.end);
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
mod tests;
