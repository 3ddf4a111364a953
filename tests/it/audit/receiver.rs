//! A receiver of audit records that holds its senders to Loki's rules for `/loki/api/v1/push`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::harness::{Fake, Reply, Seen, eventually};

/// What a receiver does with a request before it looks at it. None: it takes it.
type Mood = dyn Fn(usize) -> Option<Reply> + Send + Sync;

/// A receiver, and what it took.
pub struct Receiver {
    pub fake: Fake,
    taken: Taken,
}

type Taken = Arc<Mutex<Vec<(Value, Vec<String>)>>>;

impl Receiver {
    /// Takes everything that keeps to the rules.
    pub async fn start() -> Self {
        Self::moody(|_| None).await
    }

    /// Answers each request, counted from 0, as the mood says.
    pub async fn moody(mood: impl Fn(usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let taken = Taken::default();
        let fake = Fake::start(behaviour(&taken, mood)).await;
        Self { fake, taken }
    }

    /// Comes back on its address, remembering what it took.
    pub async fn restart(self) -> Self {
        let fake = self.fake.restart(behaviour(&self.taken, |_| None)).await;
        let taken = self.taken;
        Self { fake, taken }
    }

    /// Hangs up on everybody, remembering what it took.
    pub async fn hang_up(self) -> Self {
        let away = |_| Some(Reply::HangUp);
        let fake = self.fake.restart(behaviour(&self.taken, away)).await;
        let taken = self.taken;
        Self { fake, taken }
    }

    /// A sink that sends here at once.
    pub fn sink(&self, format: &str) -> Value {
        let path = match format {
            "loki" => "/loki/api/v1/push",
            _ => "/records",
        };
        let url = self.fake.url() + path;
        json!({"http": {"name": "there", "url": url, "format": format, "batchMaxWait": "20ms"}})
    }

    /// The events that were taken, in order, each request's with its labels.
    pub fn requests(&self) -> Vec<(Value, Vec<Value>)> {
        let taken = self.taken.lock().unwrap();
        let parsed = |line: &String| serde_json::from_str(line).unwrap();
        taken
            .iter()
            .map(|(labels, lines)| (labels.clone(), lines.iter().map(parsed).collect()))
            .collect()
    }

    /// The ids of all events that were taken, in order.
    pub fn ids(&self) -> Vec<String> {
        let events = self.requests().into_iter().flat_map(|(_, events)| events);
        events.map(|event| super::id(&event)).collect()
    }

    pub async fn has(&self, count: usize) {
        eventually(&format!("{count} events arrive"), async || {
            self.ids().len() >= count
        })
        .await;
        assert_eq!(self.ids().len(), count);
    }
}

fn behaviour(
    taken: &Taken,
    mood: impl Fn(usize) -> Option<Reply> + Send + Sync + 'static,
) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let (taken, mood): (_, Box<Mood>) = (Arc::clone(taken), Box::new(mood));
    let asked = Mutex::new(0);
    move |seen| {
        let number = {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            *asked - 1
        };
        if let Some(reply) = mood(number) {
            return reply;
        }
        let read = match seen.target.as_str() {
            "/loki/api/v1/push" => loki(seen),
            "/records" => ndjson(seen),
            other => Err(format!("there is nothing at {other}")),
        };
        match read {
            Ok(request) => {
                taken.lock().unwrap().push(request);
                Reply::text(204, "text/plain", "")
            }
            Err(why) => Reply::text(400, "text/plain", why),
        }
    }
}

fn ndjson(seen: &Seen) -> Result<(Value, Vec<String>), String> {
    if seen.header("content-type") != Some("application/x-ndjson") {
        return Err("not application/x-ndjson".to_owned());
    }
    let lines: Vec<_> = seen.text.lines().map(str::to_owned).collect();
    let torn = lines
        .iter()
        .find(|line| serde_json::from_str::<Value>(line).is_err());
    match torn {
        None if seen.text.ends_with('\n') => Ok((Value::Null, lines)),
        _ => Err(format!("torn: {torn:?}")),
    }
}

/// The rules of Loki's distributor: `stream` and `values`, at least one label and at most fifteen, names
/// of letters, digits and `_`, times as texts of nanoseconds, neither a week old nor from the future, lines
/// of at most 256 kB.
fn loki(seen: &Seen) -> Result<(Value, Vec<String>), String> {
    if seen.header("content-type") != Some("application/json") {
        return Err("not application/json".to_owned());
    }
    let streams = seen.body["streams"].as_array().ok_or("no streams")?;
    let [stream] = streams.as_slice() else {
        return Err(format!("{} streams", streams.len()));
    };
    let labels = stream["stream"].as_object().ok_or("no labels")?;
    if !(1..=15).contains(&labels.len()) {
        return Err("error at least one label pair is required per stream".to_owned());
    }
    for (name, value) in labels {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("invalid label name {name}"));
        }
        value.as_str().ok_or("a label that is no text")?;
    }
    let values = stream["values"].as_array().ok_or("no values")?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let mut lines = Vec::new();
    for value in values {
        let [at, line] = value.as_array().map(Vec::as_slice).unwrap_or_default() else {
            return Err("a value is a time and a line".to_owned());
        };
        let at: u64 = at
            .as_str()
            .and_then(|at| at.parse().ok())
            .ok_or_else(|| format!("{at} is no text of nanoseconds"))?;
        let at = Duration::from_nanos(at);
        if at > now + Duration::from_secs(600) || at + Duration::from_secs(7 * 86_400) < now {
            return Err("entry for stream has timestamp too new or too old".to_owned());
        }
        let line = line.as_str().ok_or("a line that is no text")?;
        if line.len() > 256 << 10 {
            return Err("max entry size exceeded".to_owned());
        }
        lines.push(line.to_owned());
    }
    match lines.is_empty() {
        true => Err("no entries".to_owned()),
        false => Ok((stream["stream"].clone(), lines)),
    }
}
