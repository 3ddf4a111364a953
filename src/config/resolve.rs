//! From the file as typed to what it means: addresses, limits, credentials and the chain, ready to
//! run. Every problem is gathered with its place; what is odd but works is a warning.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustls_pki_types::ServerName;

use super::file::{self, LogFormat, LogLevel};
use super::notes::Notes;
use super::places::item;
use super::units::{ByteCount, Period};
use super::{Loaded, Problem, Problems, chain, defaults, recording};
use crate::admission::chain::Chain;
use crate::observe::audit;
use crate::observe::logs::Format;
use crate::observe::record::Recording;
use crate::observe::traces;
use crate::plugins::Plugin;
use crate::server::auth::Auth;
use crate::server::{Limits, auth, tls};

/// A configuration that can be run.
pub struct Settings {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub state_dir: PathBuf,
    /// The names a made certificate holds for, the best known first.
    pub server_names: Vec<ServerName<'static>>,
    pub tls: Tls,
    pub auth: Auth,
    pub path_prefix: String,
    pub deadline: Duration,
    pub limits: Limits,
    pub log: Log,
    pub audit: audit::Settings,
    pub metrics: Metrics,
    /// Where traces go, if anywhere.
    pub tracing: Option<traces::Settings>,
    /// What is recorded of which reviews.
    pub recording: Recording,
    /// Whether the admin address shows the latest decisions.
    pub decisions_page: bool,
    pub chain: Chain<Plugin>,
    /// Headers that some plugin wants passed on, in lower case.
    pub forward_headers: Vec<String>,
    /// The hash of the configuration's text.
    pub hash: String,
    /// Files that were read besides the configuration itself. A change of one is a change of this.
    pub inputs: Vec<PathBuf>,
    /// What works but is probably not meant.
    pub warnings: Vec<Problem>,
}

/// How the review port is secured.
pub enum Tls {
    Off,
    /// With a CA and certificate that are made under `stateDir`.
    Made {
        client_ca_file: Option<PathBuf>,
    },
    Files {
        settings: tls::Settings,
        loaded: tls::Loaded,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: Format,
    pub level: &'static str,
}

/// What is counted besides what always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Decisions are counted by project, for so many at most; 0 counts none.
    pub projects: usize,
}

/// Makes sense of a file. Reads the files that it names and changes nothing.
///
/// # Errors
/// Everything that is wrong.
pub fn resolve(loaded: Loaded, now: SystemTime) -> Result<Settings, Problems> {
    let Loaded { file, places, hash } = loaded;
    let mut notes = Notes::new(places);

    let listen = notes.address("listen", file.listen.as_deref().unwrap_or(defaults::LISTEN));
    let admin = notes.address("admin", file.admin.as_deref().unwrap_or(defaults::ADMIN));
    let tls = notes.tls(file.tls.as_ref(), now);
    let auth = notes.auth(file.auth.as_ref());
    let limits = limits(&file.limits);
    let deadline = file.deadline.unwrap_or(defaults::DEADLINE).0;
    let audit = notes.audit(&file.audit);
    let recording = notes.recording(&file.audit);
    let log = log(&file.log);
    let metrics = Metrics {
        projects: file.metrics.projects.map_or(0, usize::from),
    };
    let tracing = notes.tracing(&file.tracing, &|name| std::env::var(name).ok());
    let server_names = notes.server_names(&file.server_names, listen);
    if let Some(listen) = listen {
        notes.exposure(listen, &file, tls.as_ref());
        if admin == Some(listen) && listen.port() != 0 {
            notes.problem("admin", format!("{listen} is `listen` already"));
        }
    }
    let state_dir = file
        .state_dir
        .unwrap_or_else(|| PathBuf::from(defaults::STATE_DIR));
    let chain::Resolved {
        chain,
        forward_headers,
        ..
    } = chain::resolve(
        &file.plugins,
        "plugins",
        &file.exemptions,
        &state_dir,
        now,
        chain::Remote::Called,
        &mut notes,
    );
    notes.time(deadline, &chain);

    match (listen, admin, tls, auth) {
        (Some(listen), Some(admin), Some(tls), Some(auth)) if notes.problems.is_empty() => {
            Ok(Settings {
                listen,
                admin,
                state_dir,
                server_names,
                tls,
                auth,
                path_prefix: file.path_prefix.unwrap_or_default(),
                deadline,
                limits,
                log,
                audit,
                metrics,
                tracing,
                recording,
                decisions_page: notes.decisions_page(file.decisions_page, admin),
                chain,
                forward_headers,
                hash,
                inputs: notes.inputs,
                warnings: notes.warnings,
            })
        }
        _ => Err(notes.problems.into_iter().collect()),
    }
}

/// When a certificate is told of that is about to expire.
const EXPIRING: Duration = Duration::from_secs(14 * 24 * 60 * 60);

impl Notes {
    fn address(&mut self, path: &str, text: &str) -> Option<SocketAddr> {
        let with_host = if text.starts_with(':') {
            format!("0.0.0.0{text}")
        } else {
            text.to_owned()
        };
        let found = with_host
            .to_socket_addrs()
            .map(|mut addresses| addresses.next());
        let address =
            found.map_err(|_| format!("`{text}` is no address; write it like `127.0.0.1:8443`"));
        self.noted(path, address).flatten()
    }

    fn tls(&mut self, tls: Option<&file::Tls>, now: SystemTime) -> Option<Tls> {
        let files = match tls {
            None => {
                return Some(Tls::Made {
                    client_ca_file: None,
                });
            }
            Some(file::Tls::Off) => return Some(Tls::Off),
            Some(file::Tls::Files(files)) => files,
        };
        let client_ca_file = files.client_ca_file.clone();
        for file in [&files.cert_file, &files.key_file, &client_ca_file]
            .into_iter()
            .flatten()
        {
            self.input(file);
        }
        match (&files.cert_file, &files.key_file) {
            (Some(cert_file), Some(key_file)) => {
                let (cert_file, key_file) = (cert_file.clone(), key_file.clone());
                let settings = tls::Settings {
                    cert_file,
                    key_file,
                    client_ca_file,
                };
                let loaded = self.noted("tls.certFile", tls::load(&settings))?;
                let left = loaded.expires.duration_since(now).unwrap_or_default();
                if left < EXPIRING {
                    let until = humantime::format_rfc3339_seconds(loaded.expires);
                    let message = match left.is_zero() {
                        true => format!("it expired at {until}, and no dstack server takes it"),
                        false => {
                            format!("it expires at {until}; a new file is taken when it is there")
                        }
                    };
                    self.warning("tls.certFile", message);
                }
                Some(Tls::Files { settings, loaded })
            }
            (None, None) => Some(Tls::Made { client_ca_file }),
            (Some(_), None) => {
                self.noted("tls.certFile", Err("needs `keyFile` beside it".to_owned()))
            }
            (None, Some(_)) => {
                self.noted("tls.keyFile", Err("needs `certFile` beside it".to_owned()))
            }
        }
    }

    fn auth(&mut self, auth: Option<&file::Auth>) -> Option<Auth> {
        let settings = match auth {
            None => auth::Settings::Open,
            Some(file::Auth {
                basic: Some(basic),
                bearer_token_file: None,
            }) => auth::Settings::Basic {
                username: basic.username.clone(),
                password_file: basic.password_file.clone(),
            },
            Some(file::Auth {
                basic: None,
                bearer_token_file: Some(token_file),
            }) => auth::Settings::Bearer {
                token_file: token_file.clone(),
            },
            Some(_) => {
                self.problem("auth", "give one of `basic` and `bearerTokenFile`");
                return None;
            }
        };
        let (path, file) = match &settings {
            auth::Settings::Open => return Auth::load(&settings).ok(),
            auth::Settings::Basic { password_file, .. } => {
                ("auth.basic.passwordFile", password_file)
            }
            auth::Settings::Bearer { token_file } => ("auth.bearerTokenFile", token_file),
        };
        self.input(file);
        self.noted(path, Auth::load(&settings))
    }

    /// Refuses what would let strangers ask for reviews or read them.
    fn exposure(
        &mut self,
        listen: SocketAddr,
        file: &file::AdmissionConfiguration,
        tls: Option<&Tls>,
    ) {
        if listen.ip().is_loopback() {
            return;
        }
        let client_certificates = match tls {
            Some(Tls::Made { client_ca_file }) => client_ca_file.is_some(),
            Some(Tls::Files { settings, .. }) => settings.client_ca_file.is_some(),
            Some(Tls::Off) => {
                let message = format!("plain HTTP is for loopback only, and `listen` is {listen}");
                self.problem("tls", message);
                return;
            }
            None => return,
        };
        if file.auth.is_none() && !client_certificates {
            let message = format!(
                "{listen} can be reached from other machines, so callers must show credentials: \
                 set `auth.basic`, `auth.bearerTokenFile` or `tls.clientCAFile`, or listen on 127.0.0.1"
            );
            self.problem("listen", message);
        }
    }

    fn server_names(
        &mut self,
        given: &[String],
        listen: Option<SocketAddr>,
    ) -> Vec<ServerName<'static>> {
        let mut names: Vec<ServerName<'static>> = Vec::new();
        for (index, name) in given.iter().enumerate() {
            let parsed = ServerName::try_from(name.clone());
            let parsed = parsed.map_err(|_| format!("`{name}` is no DNS name or IP address"));
            names.extend(self.noted(&item("serverNames", index), parsed));
        }
        let Some(ip) = listen.map(|listen| listen.ip()) else {
            return names;
        };
        let mut more: Vec<String> = Vec::new();
        if ip.is_unspecified() {
            more.extend(
                fs::read_to_string("/proc/sys/kernel/hostname")
                    .ok()
                    .map(|name| name.trim().to_owned()),
            );
        }
        if ip.is_loopback() || ip.is_unspecified() {
            more.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        } else {
            more.push(ip.to_string());
        }
        for name in more
            .into_iter()
            .filter_map(|name| ServerName::try_from(name).ok())
        {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn audit(&mut self, audit: &recording::Audit) -> audit::Settings {
        let sinks = self.sinks(&audit.sinks);
        audit::Settings { sinks }
    }

    /// The page shows who applies what: beyond loopback somebody has to want it.
    fn decisions_page(&mut self, wanted: Option<bool>, admin: SocketAddr) -> bool {
        let loopback = admin.ip().is_loopback();
        if wanted == Some(true) && !loopback {
            let message = format!("whoever reaches {admin} can read who applies what");
            self.warning("decisionsPage", message);
        }
        wanted.unwrap_or(loopback)
    }

    /// Says when the chain may take longer than it is waited for.
    fn time(&mut self, deadline: Duration, chain: &Chain<Plugin>) {
        let text = humantime::format_duration(deadline);
        if deadline.is_zero() {
            self.problem("deadline", "a deadline of 0s denies everything");
        }
        if deadline >= SERVER_PATIENCE {
            self.warning(
                "deadline",
                format!("the dstack server gives up after 8s, so {text} is too long"),
            );
        }
        let worst = worst_case(chain);
        if worst > deadline {
            let worst = humantime::format_duration(worst);
            let message = format!(
                "in the worst case the plugins take {worst}, which the deadline cuts to {text}: \
                 lower timeouts, or join plugins in a `fanOut`"
            );
            self.warning("plugins", message);
        }
    }
}

/// How long the enforced plugins may take together. What runs in process is stopped by its evaluation
/// budget within milliseconds, which do not count here.
pub fn worst_case(chain: &Chain<Plugin>) -> Duration {
    chain.worst_case(|member| match member.plugin.backend.is_remote() {
        true => member.timeout,
        false => Duration::ZERO,
    })
}

/// How long the dstack server waits for bytes.
const SERVER_PATIENCE: Duration = Duration::from_secs(8);

fn limits(limits: &file::Limits) -> Limits {
    let bytes = |given: Option<ByteCount>, default: ByteCount| {
        usize::try_from(given.unwrap_or(default).0).unwrap_or(usize::MAX)
    };
    let period = |given: Option<Period>, default: Period| given.unwrap_or(default).0;
    let count = |given: Option<u32>, default: u32| given.unwrap_or(default) as usize;
    Limits {
        body_bytes: bytes(limits.body_bytes, defaults::BODY_BYTES),
        in_flight: count(limits.in_flight, defaults::IN_FLIGHT),
        in_flight_wait: period(limits.in_flight_wait, defaults::IN_FLIGHT_WAIT),
        connections: count(limits.connections, defaults::CONNECTIONS),
        handshake_timeout: period(limits.handshake_timeout, defaults::HANDSHAKE_TIMEOUT),
        header_timeout: period(limits.header_timeout, defaults::HEADER_TIMEOUT),
        body_timeout: period(limits.body_timeout, defaults::BODY_TIMEOUT),
        grace_period: period(limits.grace_period, defaults::GRACE_PERIOD),
    }
}

fn log(log: &file::Log) -> Log {
    let format = match log.format {
        Some(LogFormat::Json) => Format::Json,
        None | Some(LogFormat::Text) => Format::Text,
    };
    let level = match log.level {
        Some(LogLevel::Error) => "error",
        Some(LogLevel::Warn) => "warn",
        None | Some(LogLevel::Info) => "info",
        Some(LogLevel::Debug) => "debug",
        Some(LogLevel::Trace) => "trace",
    };
    Log { format, level }
}
