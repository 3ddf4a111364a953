//! URLs, as Kubernetes has them: `url`, `isURL` and the parts of a URL.
//!
//! Kubernetes reads URLs with Go's `net/url`, which keeps them as they are written: ports, dots
//! in paths and hosts that are no domain names stay. The rules here are those of `Parse` and
//! `ParseRequestURI`: an absolute URI or an absolute path, spaces allowed in path and query.

use std::collections::HashMap;
use std::sync::Arc;

use ::cel::common::types::{CelBool, CelList, CelMap, CelMapKey, CelString};
use ::cel::common::value::Val;
use ::cel::{DeclarationError, Env, ExecutionError, add_member_overload, add_overload};

use super::super::meter::{self, Meter};
use super::arguments::opaque;

/// Units for one parameter of a query.
const PARAMETER: u64 = 4;

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_type(Url::cel_type().to_owned())?;
    add_overload!(env, fn url: (CelString) -> Result<Url>)?;
    add_overload!(env, fn is_url: (CelString) -> CelBool, name = "isURL")?;
    add_overload!(env, fn text: (Url) -> CelString, name = "string")?;
    add_member_overload!(env, fn get_scheme: (Url) -> CelString)?;
    add_member_overload!(env, fn get_host: (Url) -> CelString)?;
    add_member_overload!(env, fn get_hostname: (Url) -> CelString)?;
    add_member_overload!(env, fn get_port: (Url) -> CelString)?;
    add_member_overload!(env, fn get_escaped_path: (Url) -> CelString)?;
    add_member_overload!(env, fn get_query: (Url, Meter) -> Result<CelMap>)?;
    Ok(())
}

/// A URL, its parts as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url(Arc<Parts>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Parts {
    /// In lower case; empty for a path.
    scheme: String,
    /// Everything before the host's `@`.
    user: String,
    /// With its port, percent escapes decoded.
    host: String,
    path: String,
    query: String,
    fragment: String,
    /// As it was written.
    text: String,
}

opaque!(Url, "kubernetes.URL");

fn url(text: &CelString<'_>) -> Result<Url, ExecutionError> {
    let parsed = parse(text.inner());
    let parts = parsed.map_err(|reason| ExecutionError::function_error("url", reason))?;
    Ok(Url(Arc::new(parts)))
}

fn is_url(text: &CelString<'_>) -> CelBool {
    // A fragment is looked into by `url` alone.
    split(text.inner(), Form::Request).is_ok().into()
}

fn text(url: &Url) -> CelString<'static> {
    url.0.text.clone().into()
}

fn get_scheme(url: &Url) -> CelString<'static> {
    url.0.scheme.clone().into()
}

fn get_host(url: &Url) -> CelString<'static> {
    url.0.host.clone().into()
}

fn get_hostname(url: &Url) -> CelString<'static> {
    let (name, _) = host_and_port(&url.0.host);
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    bare.unwrap_or(name).to_owned().into()
}

fn get_port(url: &Url) -> CelString<'static> {
    host_and_port(&url.0.host).1.to_owned().into()
}

fn get_escaped_path(url: &Url) -> CelString<'static> {
    let path = &url.0.path;
    if path.bytes().all(|byte| is_path(byte) || byte == b'%') {
        return path.clone().into();
    }
    let mut escaped = String::with_capacity(path.len());
    for byte in unescaped(path).unwrap_or_default() {
        if is_unreserved(byte) || b"$&+,/:;=@".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped.into()
}

/// Each parameter with its values. What is malformed is left out, as Go leaves it out.
fn get_query(url: &Url, meter: &Meter) -> Result<CelMap<'static>, ExecutionError> {
    let query = &url.0.query;
    meter.pay(meter::text(query.len()))?;
    let mut values: HashMap<String, Vec<Box<dyn Val>>> = HashMap::new();
    for parameter in query.split('&') {
        meter.pay(PARAMETER)?;
        if parameter.is_empty() || parameter.contains(';') {
            continue;
        }
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let (Ok(key), Ok(value)) = (plain(key), plain(value)) else {
            continue;
        };
        let value = Box::new(CelString::from(value));
        values.entry(key).or_default().push(value);
    }
    let entry = |(key, values)| {
        let values: Box<dyn Val> = Box::new(CelList::from(values));
        (CelMapKey::from(key), values)
    };
    let entries: HashMap<CelMapKey<'static>, Box<dyn Val>> =
        values.into_iter().map(entry).collect();
    Ok(entries.into())
}

/// A key or value of a query, where `+` is a space.
fn plain(text: &str) -> Result<String, &'static str> {
    let bytes = unescaped(&text.replace('+', " "))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Go asks twice: whether it could stand in a request, and what its parts are without the
/// fragment.
fn parse(text: &str) -> Result<Parts, &'static str> {
    split(text, Form::Request)?;
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    unescaped(fragment)?;
    Ok(Parts {
        fragment: fragment.to_owned(),
        text: text.to_owned(),
        ..split(rest, Form::Any)?
    })
}

/// What is asked of a URL that begins with a slash.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// It is a path.
    Request,
    /// It may be a host after two slashes.
    Any,
}

fn split(text: &str, form: Form) -> Result<Parts, &'static str> {
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("a URL has no control characters");
    }
    if text.is_empty() {
        return Err("a URL is not empty");
    }
    let mut parts = Parts::default();
    if text == "*" {
        text.clone_into(&mut parts.path);
        return Ok(parts);
    }
    let (scheme, rest) = scheme(text)?;
    parts.scheme = scheme.to_ascii_lowercase();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    query.clone_into(&mut parts.query);
    if !rest.starts_with('/') {
        return match scheme {
            "" => Err("a URL is an absolute URI or an absolute path"),
            // `mailto:ada@example.com` has neither host nor path.
            _ => Ok(parts),
        };
    }
    let hosted = !scheme.is_empty() || form == Form::Any && !rest.starts_with("///");
    let path = match rest.strip_prefix("//").filter(|_| hosted) {
        Some(authority) => {
            let slash = authority.find('/').unwrap_or(authority.len());
            let (authority, path) = authority.split_at(slash);
            let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
            check_user(user)?;
            user.clone_into(&mut parts.user);
            parts.host = checked_host(host)?;
            path
        }
        None => rest,
    };
    unescaped(path)?;
    path.clone_into(&mut parts.path);
    Ok(parts)
}

/// What stands before the first `:`, if it can be a scheme, and what follows.
fn scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if position > 0 => {}
            b':' if position == 0 => return Err("the URL's scheme is missing"),
            b':' => return Ok((&text[..position], &text[position + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn check_user(user: &str) -> Result<(), &'static str> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
    if !user.bytes().all(known) {
        return Err("the URL's user is not valid");
    }
    unescaped(user).map(|_| ())
}

/// A host and its port, its escapes decoded.
fn checked_host(host: &str) -> Result<String, &'static str> {
    let after = match host.strip_prefix('[') {
        Some(_) => host.rfind(']').map(|end| end + 1),
        None => Some(host.rfind(':').unwrap_or(host.len())),
    };
    let Some(port) = after.and_then(|after| host.get(after..)) else {
        return Err("the URL's host lacks its `]`");
    };
    if !is_port(port) {
        return Err("the URL's port is not a number");
    }
    let name = &host[..host.len() - port.len()];
    if let Some(address) = name.strip_prefix('[') {
        let address = address.trim_end_matches(']');
        let (address, _) = address.split_once("%25").unwrap_or((address, ""));
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("the URL's host is not an IPv6 address");
        }
    }
    let plain =
        |byte: u8| byte >= 0x80 || is_unreserved(byte) || b"!$&'()*+,;=:[]<>\"%".contains(&byte);
    if !name.bytes().all(plain) {
        return Err("the URL's host has characters that no host has");
    }
    let bytes = unescaped(host)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A host without its port, and the port.
fn host_and_port(host: &str) -> (&str, &str) {
    match host.rfind(':') {
        Some(colon) if is_port(&host[colon..]) => (&host[..colon], &host[colon + 1..]),
        _ => (host, ""),
    }
}

/// Nothing, or a colon and digits, or a colon alone.
fn is_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => text.is_empty(),
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
}

/// What may stand in a path without an escape.
fn is_path(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@/[]".contains(&byte)
}

/// The bytes that a text with percent escapes stands for.
fn unescaped(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        match digit().zip(digit()) {
            Some((high, low)) => bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?')),
            None => return Err("the URL has a `%` without two hexadecimal digits"),
        }
    }
    Ok(bytes)
}
