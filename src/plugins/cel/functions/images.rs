//! `imageReference(text)`: a container image's name taken apart, as Docker reads it.
//!
//! Gives a map of `registry`, `repository`, `tag`, `digest` and `reference`. Without a registry
//! it is `docker.io`, where a name without a namespace is in `library/`; without a tag and a
//! digest the tag is `latest`. What precedes the first `/` is a registry if it is `localhost` or
//! has a dot or a colon, and comes out in lower case. `reference` is
//! `registry/repository[:tag][@digest]`; `tag` and `digest` are empty where there is none. The
//! `isImageReference(text)` says whether it is one. The
//! grammar is that of github.com/distribution/reference, except that a capital alone makes no
//! registry: `Acme/train` is an error, since `acme/train` is another image. Nothing is looked up.

use std::collections::HashMap;

use ::cel::common::types::{CelBool, CelMap, CelMapKey, CelString};
use ::cel::common::value::Val;
use ::cel::{DeclarationError, Env, ExecutionError, add_overload};

const DOCKER: &str = "docker.io";

/// The most characters of a name, its registry included.
const NAME_LENGTH: usize = 255;

/// No reference is longer, in bytes: a name, a tag and the longest digest.
const LENGTH: usize = 1024;

/// The most characters of a tag.
const TAG_LENGTH: usize = 128;

pub(super) fn library(env: &mut Env) -> Result<(), DeclarationError> {
    add_overload!(env, fn image_reference: (CelString) -> Result<CelMap>)?;
    add_overload!(env, fn is_image_reference: (CelString) -> CelBool)?;
    Ok(())
}

/// Whether `imageReference` reads a text.
fn is_image_reference(text: &CelString<'_>) -> CelBool {
    is_reference(text.inner()).into()
}

/// Whether a text is an image's name.
pub(in super::super) fn is_reference(text: &str) -> bool {
    parse(text).is_ok()
}

struct Reference<'a> {
    registry: String,
    repository: String,
    tag: &'a str,
    digest: &'a str,
}

fn image_reference(text: &CelString<'_>) -> Result<CelMap<'static>, ExecutionError> {
    let error = |reason| ExecutionError::function_error("imageReference", reason);
    let member = |(key, value)| {
        let value: Box<dyn Val> = Box::new(CelString::from(value));
        (CelMapKey::from(key), value)
    };
    let members = members(text.inner()).map_err(error)?;
    let members: HashMap<CelMapKey<'static>, Box<dyn Val>> =
        members.into_iter().map(member).collect();
    Ok(members.into())
}

/// The parts of an image's name, each with what it is called.
///
/// # Errors
/// Why the text is none.
pub(in super::super) fn members(text: &str) -> Result<[(&'static str, String); 5], &'static str> {
    let image = parse(text)?;
    let mut reference = format!("{}/{}", image.registry, image.repository);
    for (mark, part) in [(':', image.tag), ('@', image.digest)] {
        if !part.is_empty() {
            reference.push(mark);
            reference.push_str(part);
        }
    }
    Ok([
        ("registry", image.registry),
        ("repository", image.repository),
        ("tag", image.tag.to_owned()),
        ("digest", image.digest.to_owned()),
        ("reference", reference),
    ])
}

fn parse(text: &str) -> Result<Reference<'_>, &'static str> {
    if text.len() > LENGTH {
        return Err("the image's name is too long");
    }
    let (named, digest) = match text.split_once('@') {
        Some((_, digest)) if !is_digest(digest) => return Err("the image's digest is not valid"),
        Some((named, digest)) => (named, digest),
        None => (text, ""),
    };
    let (registry, path) = match named.split_once('/') {
        Some((first, path)) if is_registry(first) => (first.to_ascii_lowercase(), path),
        _ => (DOCKER.to_owned(), named),
    };
    if !is_host(&registry) {
        return Err("the image's registry is not a host");
    }
    let (path, tag) = match path.split_once(':') {
        Some((_, tag)) if !is_tag(tag) => return Err("the image's tag is not valid"),
        Some((path, tag)) => (path, tag),
        None if digest.is_empty() => (path, "latest"),
        None => (path, ""),
    };
    if !path.split('/').all(is_component) {
        return Err("not an image: a repository is of lower-case letters, digits and . _ - /");
    }
    if path.len() == 64 && path.bytes().all(is_hexadecimal) {
        return Err("not an image: it reads like an image's ID");
    }
    let registry = match registry.as_str() {
        "index.docker.io" => DOCKER.to_owned(),
        _ => registry,
    };
    let repository = match registry == DOCKER && !path.contains('/') {
        true => format!("library/{path}"),
        false => path.to_owned(),
    };
    if registry.len() + 1 + repository.len() > NAME_LENGTH {
        return Err("the image's name is too long");
    }
    Ok(Reference {
        registry,
        repository,
        tag,
        digest,
    })
}

/// Whether what precedes the first slash is a registry, not a namespace.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':'])
}

/// Names and numbers with an optional port, or an IPv6 address in brackets.
fn is_host(registry: &str) -> bool {
    let end = match registry.strip_prefix('[') {
        Some(_) => registry.rfind(']').map_or(0, |end| end + 1),
        None => registry.find(':').unwrap_or(registry.len()),
    };
    let (host, port) = registry.split_at(end);
    let digits = port.strip_prefix(':');
    let port = port.is_empty()
        || digits.is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        });
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    port && match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let dashed = label.starts_with('-') || label.ends_with('-');
            !label.is_empty() && !dashed && label.bytes().all(plain)
        }),
    }
}

/// Letters and digits with one `.`, one or two `_`, or any number of `-` between them.
fn is_component(component: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    let separators = || {
        let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        separators.filter(|separator| !separator.is_empty())
    };
    ends.is_some_and(|(first, last)| is_plain(*first) && is_plain(*last))
        && separators().all(|separator| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first = tag.bytes().next();
    tag.len() <= TAG_LENGTH
        && first.is_some_and(is_word)
        && tag
            .bytes()
            .all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hash)) = digest.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hash.len() == length && hash.bytes().all(is_hexadecimal)
}

fn is_hexadecimal(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}
