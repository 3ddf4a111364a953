//! The real binary in a directory of its own, with an environment of its own, killed at the end.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::client::{Answer, Body, Connection, Protocol, Stream, Trust, full, stream};
use super::{eventually, in_time};

pub const RUN: &str = "/apply_policies/on_run_apply";

/// A spec as no serializer of ours would write it, so that a rewritten one shows.
pub const SPEC: &str = r#"{"run_name": "r1",  "repo_id":"repo", "configuration": {"type":"task", "max_price": 1.50, "nodes": 2, "tags": {"z":"1","a" : "2"}, "commands": ["true"]}, "eps": 1e-05, "big": 123456789012345678901234567890}"#;

/// A directory for one sidecar, its configuration and its files.
pub struct Home {
    dir: TempDir,
    /// A shell command that runs before, such as `ulimit -n 64`.
    before: &'static str,
}

impl Home {
    pub fn new() -> Self {
        Self::under("true")
    }

    /// For a sidecar that is started after a shell command in the same process.
    pub fn under(before: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, before }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, replacing it in one step, and returns its path.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let (path, new) = (self.path(name), self.path(&format!("{name}.new")));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    /// The configuration with what every test needs, as text. JSON is YAML.
    pub fn configuration(&self, keys: &Value) -> String {
        let mut whole = json!({
            "apiVersion": "dstack-admission/v1",
            "kind": "AdmissionConfiguration",
            "listen": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            "stateDir": self.path("state"),
            "log": {"format": "json"},
            "audit": {"sinks": [{"file": {"path": self.path("audit.log")}}]},
        });
        let own = keys.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(own);
        format!("{whole:#}\n")
    }

    pub fn configure(&self, keys: &Value) -> PathBuf {
        self.write("config.yaml", self.configuration(keys))
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!("{} && exec \"$0\" \"$@\"", self.before))
            .arg(env!("CARGO_BIN_EXE_dstack-admission"))
            .env_clear()
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path())
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null());
        command
    }

    /// Starts a sidecar that must refuse to serve. Returns its exit code and what it says.
    pub fn refused(&self, keys: &Value) -> (Option<i32>, String) {
        let output = self.command(&self.configure(keys)).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    }
}

type Lines = Arc<Mutex<Vec<String>>>;

/// A sidecar that serves.
pub struct Sidecar {
    pub home: Home,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub trust: Option<Trust>,
    child: Child,
    stdout: Lines,
    log: Lines,
}

impl Sidecar {
    /// Starts with these keys of the configuration and waits until it is ready.
    pub async fn start(keys: Value) -> Self {
        Self::start_in(Home::new(), keys).await
    }

    /// With this plugin chain, over plain HTTP: such tests are about what is behind the sidecar.
    pub async fn with_plugins(plugins: impl IntoIterator<Item = Value>) -> Self {
        Self::start(json!({"tls": "off", "plugins": Vec::from_iter(plugins)})).await
    }

    pub async fn start_in(home: Home, keys: Value) -> Self {
        let config = home.configure(&keys);
        Self::start_with(home, &config).await
    }

    /// Starts with a configuration file that stands where the test put it.
    pub async fn start_with(home: Home, config: &Path) -> Self {
        let mut child = home
            .command(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = lines_of(child.stdout.take().unwrap());
        let log = lines_of(child.stderr.take().unwrap());
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut sidecar = Self {
            home,
            address: anywhere,
            admin: anywhere,
            trust: None,
            child,
            stdout,
            log,
        };
        let serving = sidecar.logged("serving").await;
        let address = |key: &str| serving[key].as_str().unwrap().parse().unwrap();
        (sidecar.address, sidecar.admin) = (address("listen"), address("admin"));
        let made = std::fs::read_to_string(sidecar.home.path("state/ca.pem"));
        sidecar.trust = made.ok().map(Trust::new);
        // Where the server finds it, and with which certificates.
        sidecar
            .told(if sidecar.trust.is_some() { 3 } else { 1 })
            .await;
        eventually("it is ready", async || {
            let ready = sidecar.try_admin("/readyz").await;
            ready.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        sidecar
    }

    /// What it wrote to standard output until now.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    /// Its standard output, once there are so many lines.
    pub async fn told(&self, lines: usize) -> Vec<String> {
        let what = format!("{lines} lines are on standard output");
        eventually(&what, async || self.stdout().len() >= lines).await;
        self.stdout()
    }

    /// What it logged until now, of which the last lines may be missing while it runs.
    pub fn log(&self) -> Vec<Value> {
        let lines = self.log.lock().unwrap();
        let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|_| json!(line));
        lines.iter().map(parse).collect()
    }

    /// The first log line with this message, which comes if it is not there yet.
    pub async fn logged(&self, message: &str) -> Value {
        self.log_line(message, |line| line["message"] == message)
            .await
    }

    /// The first log line of this kind, which comes if it is not there yet.
    pub async fn log_line(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        eventually(&format!("it is logged: {what}"), async || {
            found = self.log().into_iter().find(&is_it);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has ended and all that it said is here.
    pub async fn exit_code(&mut self) -> Option<i32> {
        eventually("it ends", async || {
            self.ended().is_some() && whole(&self.stdout) && whole(&self.log)
        })
        .await;
        self.ended().unwrap().code()
    }

    /// Stops it in order and gives its directory to the next.
    pub async fn stop(mut self) -> Home {
        self.signal(Signal::TERM);
        assert_eq!(self.exit_code().await, Some(0));
        std::mem::replace(&mut self.home, Home::new())
    }

    /// Kills it, as the kernel or a power cut does, and gives its directory to the next.
    pub async fn kill(mut self) -> Home {
        self.signal(Signal::KILL);
        eventually("it ends", async || self.ended().is_some()).await;
        std::mem::replace(&mut self.home, Home::new())
    }

    pub async fn connect(&self, protocol: Protocol) -> Connection {
        let open = Connection::open(self.address, self.trust.as_ref(), protocol);
        in_time("a connection", open).await.unwrap()
    }

    /// A stream to write bytes to, past TLS.
    pub async fn stream(&self) -> Box<dyn Stream> {
        let open = stream(self.address, self.trust.as_ref(), Protocol::Http1);
        in_time("a connection", open).await.unwrap()
    }

    /// TLS over a connection that stands already.
    pub async fn secure(&self, tcp: TcpStream, protocol: Protocol) -> impl Stream + use<> {
        let trust = self.trust.as_ref().expect("it speaks TLS");
        in_time("a handshake", trust.secure(tcp, protocol))
            .await
            .unwrap()
    }

    /// Sends a request over a connection of its own.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let mut connection = self.connect(Protocol::Http1).await;
        in_time("an answer", connection.send(request))
            .await
            .unwrap()
    }

    pub async fn post(&self, path: &str, body: impl Into<String>) -> Answer {
        self.send(post(path, body)).await
    }

    /// Has a run reviewed.
    pub async fn review(&self, spec: &str) -> Answer {
        self.post(RUN, body(spec)).await
    }

    pub async fn try_admin(&self, path: &str) -> io::Result<Answer> {
        let mut connection = Connection::open(self.admin, None, Protocol::Http1).await?;
        let answer = connection.send(request(Method::GET, path, "")).await;
        answer.map_err(io::Error::other)
    }

    pub async fn admin(&self, path: &str) -> Answer {
        in_time("an answer", self.try_admin(path)).await.unwrap()
    }

    /// A metric by its name without `dstack_admission_`, labels in alphabetical order. 0 if absent.
    pub async fn metric(&self, name: &str) -> f64 {
        let metrics = metrics(self.admin("/metrics").await.text());
        let name = format!("dstack_admission_{name}");
        metrics.get(&name).copied().unwrap_or_default()
    }

    pub async fn counted(&self, name: &str, value: f64) {
        let what = format!("{name} is {value}");
        eventually(&what, async || self.metric(name).await == value).await;
    }

    /// The audit events until now.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.home.path("audit.log")).unwrap();
        let parse = |line| {
            super::events::fitting(serde_json::from_str(line).expect("an audit line is JSON"))
        };
        text.lines().map(parse).collect()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            std::thread::sleep(Duration::from_millis(50));
            let shown = [&self.stdout, &self.log].map(|lines| lines.lock().unwrap().join("\n"));
            println!("the sidecar said:\n{}\n{}", shown[0], shown[1]);
        }
    }
}

/// Whether whoever reads these lines has come to their end.
fn whole(lines: &Lines) -> bool {
    Arc::strong_count(lines) == 1
}

fn lines_of(from: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let into = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            into.lock().unwrap().push(line);
        }
    });
    lines
}

/// A review's request body.
pub fn body(spec: &str) -> String {
    format!(r#"{{"user": "alice", "project": "main", "spec": {spec}}}"#)
}

pub fn request(method: Method, path: &str, body: impl Into<String>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(full(body.into()))
        .unwrap()
}

pub fn post(path: &str, body: impl Into<String>) -> Request<Body> {
    request(Method::POST, path, body)
}

/// Reads the Prometheus text format; every line must be one of it.
pub fn metrics(text: &str) -> BTreeMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("NAME VALUE");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}
