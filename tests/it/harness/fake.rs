//! Plugin servers whose behaviour a test writes down, and that remember what they were asked.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::client::{Body, full};
use super::eventually;

/// One call that reached a plugin server.
#[derive(Clone, Debug)]
pub struct Seen {
    pub target: String,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
    #[cfg(feature = "otlp")]
    pub bytes: Bytes,
    /// Whether the client showed a certificate.
    pub certificate: bool,
}

/// What a plugin server does with a call.
pub enum Reply {
    Http(Response<Body>),
    /// Closes the connection instead of answering.
    HangUp,
    /// Begins to answer and closes the connection in the middle.
    BreakOff,
    /// Never answers.
    Silence,
    After(Duration, Box<Reply>),
    When(Gate, Box<Reply>),
}

impl Reply {
    pub fn text(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let response = Response::builder()
            .status(status)
            .header("content-type", content_type);
        Reply::Http(response.body(full(body)).unwrap())
    }

    pub fn json(body: &Value) -> Self {
        Reply::text(200, "application/json", body.to_string())
    }

    pub fn after(self, delay: Duration) -> Self {
        Reply::After(delay, Box::new(self))
    }

    pub fn when(self, gate: &Gate) -> Self {
        Reply::When(gate.clone(), Box::new(self))
    }
}

/// Holds answers back until it is opened.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub fn open(&self) {
        self.0.close();
    }

    async fn opened(&self) {
        // Ends with an error when the semaphore is closed, which is what opening does.
        let _ = self.0.acquire().await;
    }
}

impl Seen {
    /// The spec that a webhook or a REST plugin was shown.
    pub fn spec(&self) -> &Value {
        match self.body.pointer("/request/object/spec") {
            Some(spec) => spec,
            None => &self.body["spec"],
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A webhook's answer to this call: `response` with what every answer has.
    pub fn reviewed(&self, response: Value) -> Reply {
        let mut body = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {"uid": self.body["request"]["uid"], "allowed": true},
        });
        let into = body["response"].as_object_mut().unwrap();
        into.extend(response.as_object().unwrap().clone());
        Reply::json(&body)
    }

    pub fn allowed(&self) -> Reply {
        self.reviewed(json!({}))
    }

    pub fn denied(&self, message: &str) -> Reply {
        self.reviewed(json!({"allowed": false, "status": {"message": message}}))
    }

    /// Paths begin at the object, so with `/spec`.
    pub fn patched(&self, operations: Value) -> Reply {
        let patch = BASE64_STANDARD.encode(operations.to_string());
        self.reviewed(json!({"patchType": "JSONPatch", "patch": patch}))
    }

    /// A REST plugin server's answer: the spec it was shown, changed.
    pub fn answered(&self, change: impl FnOnce(&mut Value)) -> Reply {
        let mut spec = self.spec().clone();
        change(&mut spec);
        Reply::json(&json!({"spec": spec, "error": null}))
    }
}

/// Sets a tag, as a webhook.
pub fn tags(
    key: &'static str,
    value: &'static str,
) -> impl Fn(&Seen) -> Reply + Send + Sync + use<> {
    let path = format!("/spec/configuration/tags/{key}");
    move |seen| seen.patched(json!([{"op": "add", "path": path, "value": value}]))
}

/// A running plugin server.
pub struct Fake {
    pub address: SocketAddr,
    scheme: &'static str,
    calls: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

type Behaviour = dyn Fn(&Seen) -> Reply + Send + Sync;

impl Fake {
    pub async fn start(behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, None, behaviour)
    }

    pub async fn start_tls(
        tls: Arc<ServerConfig>,
        behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, Some(tls), behaviour)
    }

    /// A webhook that denies everything in these words.
    pub async fn denying(message: &'static str) -> Self {
        Self::start(move |seen| seen.denied(message)).await
    }

    /// A webhook that allows everything once the gate is open.
    pub async fn held() -> (Self, Gate) {
        let gate = Gate::closed();
        let until = gate.clone();
        let fake = Self::start(move |seen| seen.allowed().when(&until)).await;
        (fake, gate)
    }

    /// Comes back on its address with another behaviour; connections from before are cut.
    pub async fn restart(self, behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let address = self.address;
        drop(self);
        let mut bound = None;
        eventually("its address is free again", async || {
            bound = TcpListener::bind(address).await.ok();
            bound.is_some()
        })
        .await;
        Self::serve(bound.unwrap(), None, behaviour)
    }

    fn serve(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let calls = Arc::new(Mutex::new(Vec::new()));
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let seen = Arc::clone(&calls);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            // Ends with this task, as connections end with their process.
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (seen, behaviour, tls) =
                    (Arc::clone(&seen), Arc::clone(&behaviour), tls.clone());
                serving.spawn(async move {
                    let Some(tls) = tls else {
                        return connection(stream, false, &seen, &behaviour).await;
                    };
                    if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                        let certificate = stream.get_ref().1.peer_certificates().is_some();
                        connection(stream, certificate, &seen, &behaviour).await;
                    }
                });
            }
        });
        Self {
            address,
            scheme,
            calls,
            connections,
            accepting,
        }
    }

    /// The address of its root.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// What it was asked until now.
    pub fn calls(&self) -> Vec<Seen> {
        self.calls.lock().unwrap().clone()
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// The one call it got.
    #[track_caller]
    pub fn call(&self) -> Seen {
        let mut calls = self.calls();
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.remove(0)
    }

    /// A webhook plugin that asks this server.
    pub fn webhook(&self, name: &str) -> Value {
        json!({"name": name, "webhook": {"url": format!("{}/validate", self.url())}})
    }

    /// A REST plugin that asks this server.
    pub fn rest(&self, name: &str) -> Value {
        json!({"name": name, "rest": {"url": self.url()}})
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection<S>(
    stream: S,
    certificate: bool,
    calls: &Mutex<Vec<Seen>>,
    behaviour: &Arc<Behaviour>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let seen = Seen {
            target: head.uri.to_string(),
            headers: head.headers,
            body: serde_json::from_slice(&body).unwrap_or_default(),
            text: String::from_utf8_lossy(&body).into_owned(),
            #[cfg(feature = "otlp")]
            bytes: body,
            certificate,
        };
        let reply = behaviour(&seen);
        calls.lock().unwrap().push(seen);
        play(reply).await
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn play(mut reply: Reply) -> io::Result<Response<Body>> {
    loop {
        reply = match reply {
            Reply::Http(response) => return Ok(response),
            Reply::HangUp => return Err(io::Error::other("hung up")),
            Reply::Silence => match pending::<Infallible>().await {},
            Reply::BreakOff => {
                let begun = Ok(Frame::data(Bytes::from_static(b"{\"spec\": ")));
                let broken = async {
                    // What was begun is on its way once the server has nothing else to write.
                    tokio::task::yield_now().await;
                    Err(io::Error::other("broken off"))
                };
                let chunks = stream::iter([begun]).chain(stream::once(broken));
                let body = BodyExt::boxed(StreamBody::new(chunks));
                let response = Response::builder().header("content-length", "100");
                return Ok(response.body(body).unwrap());
            }
            Reply::After(delay, then) => {
                tokio::time::sleep(delay).await;
                *then
            }
            Reply::When(gate, then) => {
                gate.opened().await;
                *then
            }
        };
    }
}
