//! The page of the latest decisions: plain HTML that loads itself anew, or JSON. What users wrote
//! is text in it and nothing else. It changes nothing and runs no script.

use std::fmt::{self, Write};
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Response, Uri};
use http_body_util::Full;

use crate::observe::recent::{Asked, Entry, KEPT, Recent};

/// Nothing but the page's own style may be loaded, and nobody may frame it.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 4] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
];
/// Seconds after which a browser loads the page anew.
const REFRESH: u8 = 5;

/// What the page looks like.
pub const STYLE: &str = "\
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #1a1a1a; background: #fff }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35em .7em; border-bottom: 1px solid #ddd }
td { overflow-wrap: anywhere }
code { font-size: 12px }
pre { margin: .3em 0 0; white-space: pre-wrap; font-size: 12px }
.denied, .would_deny, .failed, .conflict { color: #a40000 }
.failed_open { color: #8f5902 }
.patched, .would_patch { color: #204a87 }
.quiet { color: #666 }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #16181c } th, td { border-color: #333 } .quiet { color: #999 }
  .denied, .would_deny, .failed, .conflict { color: #ff7b72 } .failed_open { color: #e3b341 }
  .patched, .would_patch { color: #79c0ff } a { color: #79c0ff }
}
";

/// Whether a request came by a name that is this machine's own. Where only this machine can ask,
/// a page of another site could still have its own name resolved to loopback and read the answer
/// (DNS rebinding): such a request carries that name.
pub fn is_own_host(headers: &HeaderMap, uri: &Uri) -> bool {
    let given = headers.get(HOST).map(|host| host.to_str().unwrap_or("?"));
    let Some(host) = uri
        .authority()
        .map(|authority| authority.as_str())
        .or(given)
    else {
        return true;
    };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// The page, or with the query `format=json` the same as JSON. With `refresh=off` it stays as it is.
pub fn page(recent: &Recent, query: Option<&str>) -> Response<Full<Bytes>> {
    let entries = recent.newest_first();
    let asked = |wanted: &str| query.is_some_and(|query| query.split('&').any(|q| q == wanted));
    if asked("format=json") {
        let shown =
            serde_json::json!({ "decisions": entries.iter().map(|e| &**e).collect::<Vec<_>>() });
        return answer("application/json", format!("{shown}\n"));
    }
    let mut html = String::with_capacity(1024 + entries.len() * 512);
    // Writing into memory cannot fail.
    let _ = document(&mut html, &entries, !asked("refresh=off"));
    answer("text/html; charset=utf-8", html)
}

/// An answer that a browser takes for nothing else than it is.
pub fn answer(content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn document<E: AsRef<Entry>>(html: &mut String, entries: &[E], refresh: bool) -> fmt::Result {
    html.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    if refresh {
        write!(html, "<meta http-equiv=\"refresh\" content=\"{REFRESH}\">")?;
    }
    html.push_str("<title>Decisions · dstack-admission</title>");
    html.push_str(
        "<link rel=\"stylesheet\" href=\"decisions.css\"></head><body>\n<h1>Decisions</h1>\n",
    );
    let other = match refresh {
        true => "loads itself anew every 5 s · <a href=\"?refresh=off\">stay</a>",
        false => "stays as it is · <a href=\"?\">go on</a>",
    };
    writeln!(
        html,
        "<p class=\"quiet\">The latest {} of at most {KEPT} since this process began, the newest first · {other} · <a href=\"?format=json\">JSON</a></p>",
        entries.len()
    )?;
    html.push_str("<table><thead><tr><th>when (UTC)</th><th>who</th><th>what</th><th>decision</th><th>plugins</th></tr></thead><tbody>\n");
    for entry in entries {
        row(html, entry.as_ref())?;
    }
    html.push_str("</tbody></table></body></html>\n");
    Ok(())
}

fn row(html: &mut String, entry: &Entry) -> fmt::Result {
    let at = humantime::format_rfc3339_millis(entry.received).to_string();
    let name = entry.name.as_deref().unwrap_or("(unnamed)");
    let decision = entry.decision;
    write!(
        html,
        "<tr><td>{}<br><code>{}</code></td><td>{}<br><span class=\"quiet\">in {}</span></td><td>{} {}</td>\
         <td><b class=\"{decision}\">{decision}</b> <span class=\"quiet\">{}</span>",
        Escaped(&at),
        Escaped(&entry.id),
        Escaped(&entry.user),
        Escaped(&entry.project),
        entry.kind,
        Escaped(name),
        millis(entry.duration_seconds),
    )?;
    if let Some(earlier) = &entry.repeat_of {
        let earlier = Escaped(earlier);
        write!(
            html,
            "<br><span class=\"quiet\">probably repeats <code>{earlier}</code></span>"
        )?;
    }
    if let Some(message) = &entry.message {
        write!(html, "<pre>{}</pre>", Escaped(message))?;
    }
    html.push_str("</td><td>");
    plugins(html, &entry.plugins)?;
    if let Some(monitored) = &entry.monitored {
        let decision = monitored.decision;
        write!(
            html,
            "<span class=\"quiet\">monitored:</span> <b class=\"{decision}\">{decision}</b><br>"
        )?;
        plugins(html, &monitored.plugins)?;
        if let Some(message) = &monitored.message {
            write!(html, "<pre>{}</pre>", Escaped(message))?;
        }
    }
    html.push_str("</td></tr>\n");
    Ok(())
}

fn plugins(html: &mut String, asked: &[Asked]) -> fmt::Result {
    for plugin in asked {
        let (name, verdict) = (Escaped(&plugin.name), plugin.verdict);
        let took = millis(plugin.duration_seconds);
        write!(
            html,
            "{name}: <span class=\"{verdict}\">{verdict}</span> <span class=\"quiet\">{took}</span><br>"
        )?;
    }
    Ok(())
}

fn millis(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

/// A text in which nothing is markup, inside of elements and of quoted attributes alike.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Controls and what turns the direction of text would show something else than is there.
                '\n' => f.write_char(c)?,
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => f.write_char('\u{fffd}')?,
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("localhost:9443", true)]
    #[case("LOCALHOST", true)]
    #[case("127.0.0.1:9443", true)]
    #[case("[::1]:9443", true)]
    #[case("[::1]", true)]
    #[case("evil.example:9443", false)]
    #[case("localhost.evil.example", false)]
    #[case("127.0.0.1.evil.example:9443", false)]
    #[case("", false)]
    fn only_names_of_this_machine_are_its_own(#[case] host: &str, #[case] own: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        assert_eq!(is_own_host(&headers, &Uri::from_static("/decisions")), own);
    }

    #[test]
    fn what_users_write_is_no_markup() {
        let shown = Escaped("<script>alert('1' & \"2\")</script>\u{202e}\u{7}").to_string();
        insta::assert_snapshot!(shown, @"&lt;script&gt;alert(&#39;1&#39; &amp; &quot;2&quot;)&lt;/script&gt;��");
    }
}
