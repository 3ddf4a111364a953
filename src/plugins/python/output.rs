//! What a worker writes besides its answers: lines on standard error and log records, passed on to
//! this process's log. Nothing that a worker writes makes it wait or fills memory here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::frames::{Level, Record};

/// The bytes of a line that are kept.
const LONGEST_LINE: usize = 4096;
/// The lines that are kept to tell why a worker ended.
const KEPT: usize = 20;
/// What is logged of one worker's standard error in a second.
const LINES: u32 = 100;
/// What is logged of one worker's log records in a second: some for each review.
const RECORDS: u32 = 1000;

/// Which worker it is, in the log.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub plugin: Arc<str>,
    pub worker: usize,
}

/// The last lines of a worker's standard error.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// One line after the other, the oldest first.
    pub fn text(&self) -> String {
        Vec::from_iter(self.lines().iter().map(String::as_str)).join("\n")
    }

    fn keep(&self, line: String) {
        let mut lines = self.lines();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads standard error to its end, whatever the log takes of it.
pub(super) async fn drain(mut from: impl AsyncRead + Unpin, label: Label, tail: Tail) {
    let mut lines = Lines::default();
    let mut rate = Rate::new(LINES);
    let mut buffer = vec![0; 8192];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        lines.feed(&buffer[..read], |line| say(&label, &tail, &mut rate, line));
    }
    lines.finish(|line| say(&label, &tail, &mut rate, line));
}

fn say(label: &Label, tail: &Tail, rate: &mut Rate, line: String) {
    if rate.allows(label) {
        tracing::info!(plugin = %label.plugin, worker = label.worker, "{line}");
    }
    tail.keep(line);
}

/// Logs what the plugin logged, at its level.
pub(super) fn log(label: &Label, rate: &mut Rate, record: &Record) {
    if !rate.allows(label) {
        return;
    }
    macro_rules! log_at {
        ($level:ident) => {
            tracing::$level!(
                plugin = %label.plugin,
                worker = label.worker,
                logger = record.logger,
                detail = record.detail,
                "{}",
                record.message
            )
        };
    }
    match record.level {
        Level::Debug => log_at!(debug),
        Level::Info => log_at!(info),
        Level::Warning => log_at!(warn),
        Level::Error => log_at!(error),
    }
}

/// How many lines a second are logged. The rest is counted.
#[derive(Debug)]
pub(super) struct Rate {
    limit: u32,
    since: Instant,
    logged: u32,
    left_out: u64,
}

impl Rate {
    pub fn records() -> Self {
        Self::new(RECORDS)
    }

    fn new(limit: u32) -> Self {
        Self {
            limit,
            since: Instant::now(),
            logged: 0,
            left_out: 0,
        }
    }

    fn allows(&mut self, label: &Label) -> bool {
        if self.since.elapsed() >= Duration::from_secs(1) {
            if self.left_out > 0 {
                let lines = self.left_out;
                tracing::warn!(plugin = %label.plugin, worker = label.worker, lines, "a worker wrote more than is logged");
            }
            *self = Self::new(self.limit);
        }
        let allowed = self.logged < self.limit;
        match allowed {
            true => self.logged += 1,
            false => self.left_out += 1,
        }
        allowed
    }
}

/// Bytes put together to lines, of which the beginning is kept.
#[derive(Default)]
pub(super) struct Lines {
    line: Vec<u8>,
}

impl Lines {
    pub fn feed(&mut self, bytes: &[u8], mut ended: impl FnMut(String)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, end) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let room = LONGEST_LINE - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if end {
                self.finish(&mut ended);
            }
        }
    }

    /// Ends the line, unless it is empty.
    pub fn finish(&mut self, mut ended: impl FnMut(String)) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if !line.is_empty() {
            ended(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label {
            plugin: "p".into(),
            worker: 0,
        }
    }

    #[test]
    fn lines_are_put_together_and_cut_to_what_can_be_shown() {
        let (mut lines, mut ended) = (Lines::default(), Vec::new());
        let long = "x".repeat(3 * LONGEST_LINE);
        for part in ["one\ntw", "o\r\n\n", &long, "\nlast \u{e9}"] {
            lines.feed(part.as_bytes(), |line| ended.push(line));
        }
        lines.finish(|line| ended.push(line));
        let cut = "x".repeat(LONGEST_LINE);
        assert_eq!(ended, ["one", "two", &cut, "last \u{e9}"]);
    }

    #[tokio::test]
    async fn the_last_lines_are_kept() {
        let text: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let tail = Tail::default();
        drain(text.as_bytes(), label(), tail.clone()).await;
        let kept = tail.text();
        assert_eq!(kept.lines().count(), KEPT);
        assert!(kept.starts_with("line 80\n") && kept.ends_with("line 99"));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_lines_a_second_are_logged() {
        let mut rate = Rate::new(2);
        let allowed = |rate: &mut Rate| (0..5).filter(|_| rate.allows(&label())).count();
        assert_eq!(allowed(&mut rate), 2);
        assert_eq!(rate.left_out, 3);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(allowed(&mut rate), 2);
    }
}
