//! From the section `tracing` to what it means, together with the environment variables that
//! OpenTelemetry defines. A key holds over a variable; a variable that cannot be read is told of and
//! counts as unset, as OpenTelemetry asks.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::uri::{PathAndQuery, Uri};
use http::{HeaderName, HeaderValue};

use super::notes::Notes;
use super::places::member;
use super::remote::{is_loopback, parse_url};
use super::tracing::{CompressionName, Otlp, SamplerName, Tracing};
use super::{defaults, env};
use crate::observe::traces::{self, Compression, Header, Sampler};

/// The path of traces below an endpoint.
const PATH: &str = "/v1/traces";
/// Where the section's keys are.
const AT: &str = "tracing.otlp";

/// The environment variables.
pub(super) type Lookup<'e> = &'e dyn Fn(&str) -> Option<String>;

/// A section on its way to what it means.
struct Build<'b> {
    notes: &'b mut Notes,
    lookup: Lookup<'b>,
}

impl Notes {
    /// Where traces go, if anywhere: a section or a variable says so. Notes all that is wrong.
    pub(super) fn tracing(
        &mut self,
        tracing: &Tracing,
        lookup: Lookup<'_>,
    ) -> Option<traces::Settings> {
        let mut build = Build {
            notes: self,
            lookup,
        };
        let endpoint = build.exporter_variable("ENDPOINT");
        if !traces::BUILT_IN {
            if tracing.otlp.is_some() {
                let message = "this binary was built without the feature `otlp` and cannot send traces; \
                     use one that was built with `cargo build --release --features otlp`, or take the section out";
                build.notes.problem(AT, message);
            } else if let Some((name, _)) = endpoint {
                let message = format!(
                    "{name} is set, and this binary was built without the feature `otlp`: no traces are sent"
                );
                build.notes.warning("tracing", message);
            }
            return None;
        }
        let disabled = build.variable("OTEL_SDK_DISABLED");
        let exporter = build.variable("OTEL_TRACES_EXPORTER");
        let off = disabled.is_some_and(|text| text.eq_ignore_ascii_case("true"))
            || exporter.is_some_and(|text| text == "none");
        if off || tracing.otlp.is_none() && endpoint.is_none() {
            return None;
        }
        build.settings(&tracing.otlp.clone().unwrap_or_default())
    }
}

impl Build<'_> {
    fn settings(&mut self, otlp: &Otlp) -> Option<traces::Settings> {
        let endpoint = self.endpoint(otlp);
        let file = |given: &Option<PathBuf>, found: Option<(String, String)>| {
            given.clone().or_else(|| found.map(|(_, file)| file.into()))
        };
        let ca_file = file(&otlp.ca_file, self.exporter_variable("CERTIFICATE"));
        let cert = file(
            &otlp.client_cert_file,
            self.exporter_variable("CLIENT_CERTIFICATE"),
        );
        let key = file(&otlp.client_key_file, self.exporter_variable("CLIENT_KEY"));
        let client_cert = self.notes.client_cert(cert.as_deref(), key.as_deref(), AT);
        let token = &otlp.bearer_token_file;
        let credentials = self
            .notes
            .credentials(token.as_deref(), otlp.basic.as_ref(), AT);
        self.notes
            .outgoing_inputs([&ca_file, &cert, &key, token], otlp.basic.as_ref());
        let headers = self.headers(otlp);
        let compression = match otlp.compression {
            Some(CompressionName::None) => Compression::Off,
            Some(CompressionName::Gzip) => Compression::Gzip,
            None => self.compression(),
        };
        if let Some((name, protocol)) = self.exporter_variable("PROTOCOL")
            && protocol != "http/protobuf"
        {
            self.ignored(&name, &protocol, "traces are sent as `http/protobuf`");
        }
        let timeout = otlp.timeout.map(|period| period.0);
        let timeout = timeout.or_else(|| self.exporter_millis("TIMEOUT"));
        let wait = otlp.batch_max_wait.map(|period| period.0);
        let wait = wait.or_else(|| {
            self.read("OTEL_BSP_SCHEDULE_DELAY")
                .map(Duration::from_millis)
        });
        let mut count = |given: Option<u32>, name, default| {
            let count = given.or_else(|| self.read::<u32>(name)).filter(|n| *n > 0);
            count.unwrap_or(default) as usize
        };
        let batch_max_size = count(
            otlp.batch_max_size,
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
            defaults::OTLP_BATCH_MAX_SIZE,
        );
        let queue_size = count(
            otlp.queue_size,
            "OTEL_BSP_MAX_QUEUE_SIZE",
            defaults::OTLP_QUEUE_SIZE,
        );
        if batch_max_size > queue_size {
            let message = format!("a batch of {batch_max_size} spans needs a `queueSize` as large");
            self.notes.problem(member(AT, "batchMaxSize"), message);
        }
        Some(traces::Settings {
            endpoint: endpoint?,
            headers,
            credentials,
            ca_file,
            client_cert,
            compression,
            timeout: timeout.unwrap_or(defaults::OTLP_TIMEOUT.0),
            sampler: self.sampler(otlp),
            service_name: otlp
                .service_name
                .clone()
                .or_else(|| self.variable("OTEL_SERVICE_NAME")),
            resource: otlp.resource_attributes.clone(),
            queue_size,
            batch_max_size,
            batch_max_wait: wait.unwrap_or(defaults::OTLP_BATCH_MAX_WAIT.0),
        })
    }

    fn endpoint(&mut self, otlp: &Otlp) -> Option<Uri> {
        if let Some(text) = &otlp.endpoint {
            let at = member(AT, "endpoint");
            let what = "who applies what";
            let url = self
                .notes
                .outgoing_url(text, otlp.allow_plain_http, what, &at)?;
            return Some(match url.path() {
                "/" => below(&url, PATH),
                _ => url,
            });
        }
        let Some((name, text)) = self.exporter_variable("ENDPOINT") else {
            return defaults::OTLP_ENDPOINT.parse().ok();
        };
        let url = match parse_url(&text) {
            Ok(url)
                if url.host().is_some() && matches!(url.scheme_str(), Some("http" | "https")) =>
            {
                url
            }
            _ => {
                let message = format!("{name} is no whole URL, such as `https://collector:4318`");
                self.notes.problem(AT, message);
                return None;
            }
        };
        if url.scheme_str() == Some("http") && !is_loopback(&url) && !otlp.allow_plain_http {
            let message =
                format!("{name} is plain HTTP, which shows who applies what to the network");
            self.notes.warning(AT, message);
        }
        // The one of traces is used as it is, the general one is a base.
        Some(match name.contains("TRACES") {
            true => url,
            false => below(&url, PATH),
        })
    }

    fn headers(&mut self, otlp: &Otlp) -> Vec<(HeaderName, Header)> {
        let mut headers = Vec::new();
        for (name, text) in &otlp.headers {
            let at = member(&member(AT, "headers"), name);
            let text = env::expand_env(text, self.lookup).map_err(|e| e.to_string());
            let text = text.and_then(|text| match HeaderValue::from_str(&text) {
                Ok(_) => Ok(text),
                Err(_) => Err("not usable in a header".to_owned()),
            });
            if let (Some(name), Some(text)) =
                (self.header_name(name, &at), self.notes.noted(&at, text))
            {
                headers.push((name, Header::Text(text)));
            }
        }
        for (name, file) in &otlp.header_files {
            let at = member(&member(AT, "headerFiles"), name);
            self.notes.input(file);
            if let Some(name) = self.header_name(name, &at) {
                if headers.iter().any(|(known, _)| *known == name) {
                    let message = format!("`{name}` is among `headers` already");
                    self.notes.problem(&at, message);
                }
                headers.push((name, Header::File(file.clone())));
            }
        }
        headers
    }

    fn header_name(&mut self, name: &str, at: &str) -> Option<HeaderName> {
        let parsed = name.parse::<HeaderName>();
        let parsed = parsed.map_err(|_| format!("`{name}` is no header name"));
        self.notes.noted(at, parsed)
    }

    fn compression(&mut self) -> Compression {
        match self.exporter_variable("COMPRESSION") {
            Some((_, text)) if text == "gzip" => Compression::Gzip,
            Some((name, text)) if text != "none" => {
                self.ignored(&name, &text, "`gzip` and `none` are known");
                Compression::Off
            }
            _ => Compression::Off,
        }
    }

    fn sampler(&mut self, otlp: &Otlp) -> Sampler {
        let name = match (otlp.sampler, otlp.sampler_ratio) {
            (Some(name), Some(_)) if !name.takes_ratio() => {
                let message = "the sampler takes no ratio";
                self.notes.problem(member(AT, "samplerRatio"), message);
                name
            }
            (Some(name), _) => name,
            (None, Some(_)) => SamplerName::ParentBasedTraceIdRatio,
            (None, None) => self.sampler_variable(),
        };
        let ratio = otlp.sampler_ratio;
        let ratio = ratio.or_else(|| {
            self.read("OTEL_TRACES_SAMPLER_ARG")
                .filter(|_| name.takes_ratio())
        });
        name.with(ratio.unwrap_or(1.0).clamp(0.0, 1.0))
    }

    fn sampler_variable(&mut self) -> SamplerName {
        let name = "OTEL_TRACES_SAMPLER";
        let text = self.variable(name);
        let known = text.as_ref().map(|text| {
            let text = text.to_ascii_lowercase();
            serde_json::from_value(text.into()).ok()
        });
        match (known, text) {
            (Some(None), Some(text)) => {
                self.ignored(name, &text, "it is none that is known here");
                SamplerName::ParentBasedAlwaysOn
            }
            (known, _) => known.flatten().unwrap_or(SamplerName::ParentBasedAlwaysOn),
        }
    }

    /// A variable of the exporter and its name: that of traces, else the general one.
    fn exporter_variable(&self, name: &str) -> Option<(String, String)> {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"];
        let mut names = names.iter().map(|prefix| format!("{prefix}{name}"));
        names.find_map(|name| self.variable(&name).map(|text| (name, text)))
    }

    fn exporter_millis(&mut self, name: &str) -> Option<Duration> {
        let (name, _) = self.exporter_variable(name)?;
        self.read(&name).map(Duration::from_millis)
    }

    /// A variable that is set to something.
    fn variable(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|text| !text.trim().is_empty())
    }

    fn read<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.variable(name)?;
        let parsed = text.trim().parse::<T>();
        parsed
            .map_err(|error| self.ignored(name, &text, &error.to_string()))
            .ok()
    }

    fn ignored(&mut self, name: &str, text: &str, why: &str) {
        let text = super::suggest::short(text);
        let message = format!("{name} is `{text}`, which is not used: {why}");
        self.notes.warning(AT, message);
    }
}

/// An address with more behind its path.
fn below(url: &Uri, path: &str) -> Uri {
    let mut parts = url.clone().into_parts();
    let path = format!("{}{path}", url.path().trim_end_matches('/'));
    parts.path_and_query = path.parse::<PathAndQuery>().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| url.clone())
}
