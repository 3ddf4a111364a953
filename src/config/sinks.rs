//! From the audit sinks as typed to what they mean.

use std::fs;
use std::path::Path;

use rustix::fs::{Access, access};

use super::audit::{FileSink, HttpFormat, HttpSink, Sink, SinkMode};
use super::defaults;
use super::notes::Notes;
use super::places::{item, member};
use crate::observe::audit::{
    FileTarget, Form, Format, HttpTarget, Keep, Mode, Rotation, Shipping, Target,
};

/// The least that a spool can work with.
const LEAST_SPOOL: u64 = 1 << 20;

impl Notes {
    /// The sinks at `audit.sinks`; without any, standard output. Notes all that is wrong with them.
    pub(super) fn sinks(&mut self, sinks: &[Sink]) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        for (index, sink) in sinks.iter().enumerate() {
            let path = item("audit.sinks", index);
            let target = match (&sink.file, &sink.stdout, &sink.http) {
                (Some(file), None, None) => Some(self.file_sink(file, &member(&path, "file"))),
                (None, Some(_), None) => Some(Target::Stdout),
                (None, None, Some(http)) => self.http_sink(http, &member(&path, "http")),
                _ => {
                    self.problem(&path, "give one of `file`, `stdout` and `http`");
                    None
                }
            };
            let Some(target) = target else {
                continue;
            };
            let name = target.name();
            if targets.iter().any(|known| known.name() == name) {
                let message = match target {
                    Target::Http(_) => {
                        format!("a sink is called `{name}` already: give each a `name` of its own")
                    }
                    _ => format!("another sink writes to {name} already"),
                };
                self.problem(path, message);
                continue;
            }
            targets.push(target);
        }
        if sinks.is_empty() {
            targets.push(Target::Stdout);
        }
        targets
    }

    fn file_sink(&mut self, file: &FileSink, path: &str) -> Target {
        if let Err(why) = writable(&file.path) {
            let message = format!("{}: {why}", file.path.display());
            self.problem(member(path, "path"), message);
        }
        let max_size = file.max_size.unwrap_or(defaults::AUDIT_MAX_SIZE).0;
        let max_backups = file.max_backups.unwrap_or(defaults::AUDIT_MAX_BACKUPS);
        if file.rotate_every.is_some_and(|every| every.0.is_zero()) {
            let message = "an age of 0s begins a file for each record";
            self.problem(member(path, "rotateEvery"), message);
        }
        Target::File(FileTarget {
            path: file.path.clone(),
            mode: mode(file.mode, Mode::Blocking),
            rotation: Rotation {
                max_size: (max_size > 0).then_some(max_size),
                every: file.rotate_every.map(|every| every.0),
                keep: Keep {
                    max_backups: (max_backups > 0).then_some(max_backups as usize),
                    max_age: file.max_age.map(|age| age.0),
                    form: match file.compress {
                        Some(false) => Form::Plain,
                        None | Some(true) => Form::Gzip,
                    },
                },
            },
        })
    }

    fn http_sink(&mut self, http: &HttpSink, path: &str) -> Option<Target> {
        let url = self.outgoing_url(
            &http.url,
            http.allow_plain_http,
            "who applies what",
            &member(path, "url"),
        );
        let (cert, key) = (&http.client_cert_file, &http.client_key_file);
        let client_cert = self.client_cert(cert.as_deref(), key.as_deref(), path);
        let credentials =
            self.credentials(http.bearer_token_file.as_deref(), http.basic.as_ref(), path);
        self.outgoing_inputs(
            [&http.ca_file, cert, key, &http.bearer_token_file],
            http.basic.as_ref(),
        );
        let format = match http.format {
            Some(HttpFormat::Loki) => Format::Loki {
                labels: match http.labels.is_empty() {
                    true => [("job".to_owned(), "dstack-admission".to_owned())].into(),
                    false => http.labels.clone(),
                },
            },
            None | Some(HttpFormat::Ndjson) => {
                if !http.labels.is_empty() {
                    let message = "labels belong to `format: loki`";
                    self.problem(member(path, "labels"), message);
                }
                Format::Ndjson
            }
        };
        for name in http.labels.keys().filter(|name| !is_label(name)) {
            let message = "a label's name has letters, digits and `_`, and begins with no digit";
            self.problem(member(&member(path, "labels"), name), message);
        }
        let spool_bytes = http.spool.max_size.unwrap_or(defaults::AUDIT_SPOOL).0;
        if spool_bytes < LEAST_SPOOL {
            let place = member(&member(path, "spool"), "maxSize");
            self.problem(place, "a spool needs 1MiB at least");
        }
        let url = url?;
        let batch_max_size = http
            .batch_max_size
            .unwrap_or(defaults::AUDIT_BATCH_MAX_SIZE);
        let batch_max_wait = http
            .batch_max_wait
            .unwrap_or(defaults::AUDIT_BATCH_MAX_WAIT);
        let host = || url.authority().map(ToString::to_string);
        Some(Target::Http(HttpTarget {
            name: http.name.clone().or_else(host).unwrap_or_default(),
            mode: mode(http.mode, Mode::Batch),
            spool_bytes,
            shipping: Shipping {
                url,
                format,
                ca_file: http.ca_file.clone(),
                client_cert,
                credentials,
                batch_max_size: batch_max_size as usize,
                batch_max_wait: batch_max_wait.0,
            },
        }))
    }
}

fn mode(given: Option<SinkMode>, default: Mode) -> Mode {
    match given {
        None => default,
        Some(SinkMode::Batch) => Mode::Batch,
        Some(SinkMode::Blocking) => Mode::Blocking,
        Some(SinkMode::BlockingStrict) => Mode::BlockingStrict,
    }
}

/// Whether a file can be written, or made, as far as that can be told without doing it.
fn writable(file: &Path) -> Result<(), String> {
    if let Ok(found) = fs::metadata(file) {
        if found.is_dir() {
            return Err("is a directory".to_owned());
        }
        return access(file, Access::WRITE_OK).map_err(|e| format!("cannot be written: {e}"));
    }
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let shown = directory.display();
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => Err(format!("{shown} is no directory")),
        Ok(_) => access(directory, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|e| format!("{shown} cannot be written to: {e}")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn is_label(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty()
}
