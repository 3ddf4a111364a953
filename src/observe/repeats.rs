//! Which review seems to repeat an earlier one. dstack asks for a plan and then applies, with the
//! same spec but for its form, and tells neither which of the two it is nor that they belong
//! together: what is found here is a guess.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use foldhash::quality::RandomState;
use serde_json::{Map, Value};

use crate::admission::review::Review;

/// Between a plan and its apply a person reads and answers.
const WINDOW: Duration = Duration::from_secs(600);
/// Reviews that are remembered, about a hundred bytes each.
const MOST: usize = 4096;

/// The latest reviews, by who asks for what.
#[derive(Default)]
pub struct Repeats {
    seed: RandomState,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    latest: HashMap<u64, (SystemTime, String)>,
    order: VecDeque<(SystemTime, u64)>,
}

impl Repeats {
    /// The id of the latest review of the same user, project and kind with the same spec, if there
    /// was one within ten minutes. Remembers this one.
    pub fn of(&self, review: &Review) -> Option<String> {
        let key = self.key(review);
        let now = review.received;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.forget(now);
        seen.order.push_back((now, key));
        let earlier = seen.latest.insert(key, (now, review.id.clone()));
        let (at, id) = earlier?;
        let recent = now.duration_since(at).is_ok_and(|since| since <= WINDOW);
        (recent && id != review.id).then_some(id)
    }

    fn key(&self, review: &Review) -> u64 {
        let mut hasher = self.seed.build_hasher();
        (&review.user, &review.project, review.kind).hash(&mut hasher);
        if let Some(spec) = review.spec.value().as_object() {
            for (key, value) in spec {
                key.hash(&mut hasher);
                match value {
                    Value::Object(members) if key == "configuration" => {
                        hash_configuration(members, &mut hasher);
                    }
                    value => hash(value, &mut hasher),
                }
            }
        }
        hasher.finish()
    }
}

impl Seen {
    fn forget(&mut self, now: SystemTime) {
        while let Some(&(at, key)) = self.order.front() {
            let old = now.duration_since(at).is_ok_and(|since| since > WINDOW);
            if !old && self.order.len() < MOST {
                return;
            }
            self.order.pop_front();
            // A later review with the same key has its own place in the order.
            if self.latest.get(&key).is_some_and(|(last, _)| *last == at) {
                self.latest.remove(&key);
            }
        }
    }
}

/// A task's absent `nodes` is 1 when it is applied.
fn hash_configuration(members: &Map<String, Value>, hasher: &mut impl Hasher) {
    let counts = |key: &str, value: &Value| {
        key != "nodes" || !(value.is_null() || value.as_u64() == Some(1))
    };
    for (key, value) in members.iter().filter(|(key, value)| counts(key, value)) {
        key.hash(hasher);
        hash(value, hasher);
    }
}

/// In the order of the members, which dstack keeps between a plan and its apply.
fn hash(value: &Value, hasher: &mut impl Hasher) {
    match value {
        Value::Object(members) => {
            hasher.write_usize(members.len());
            for (key, value) in members {
                key.hash(hasher);
                hash(value, hasher);
            }
        }
        Value::Array(elements) => {
            hasher.write_usize(elements.len());
            elements.iter().for_each(|value| hash(value, hasher));
        }
        leaf => leaf.hash(hasher),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rstest::rstest;

    use super::*;
    use crate::admission::review::{Kind, Spec};

    const TASK: &str = r#"{"run_name": "a", "configuration": {"type": "task", "commands": ["x"]}}"#;

    fn review(id: &str, user: &str, kind: Kind, at: u64, spec: &str) -> Review {
        Review {
            id: id.to_owned(),
            kind,
            user: user.to_owned(),
            project: "main".to_owned(),
            received: SystemTime::UNIX_EPOCH + Duration::from_secs(at),
            headers: Vec::new(),
            trace: None,
            spec: Spec::parse(Bytes::copy_from_slice(spec.as_bytes())).unwrap(),
        }
    }

    #[rstest]
    #[case::same("alice", Kind::Run, 601, TASK, true)]
    #[case::with_one_node(
        "alice",
        Kind::Run,
        5,
        r#"{"run_name": "a", "configuration": {"type": "task", "nodes": 1, "commands": ["x"]}}"#,
        true
    )]
    #[case::with_two_nodes(
        "alice",
        Kind::Run,
        5,
        r#"{"run_name": "a", "configuration": {"type": "task", "nodes": 2, "commands": ["x"]}}"#,
        false
    )]
    #[case::later("alice", Kind::Run, 602, TASK, false)]
    #[case::of_another_user("bob", Kind::Run, 5, TASK, false)]
    #[case::of_another_kind("alice", Kind::Fleet, 5, TASK, false)]
    #[case::another_spec(
        "alice",
        Kind::Run,
        5,
        r#"{"run_name": "a", "configuration": {"type": "task", "commands": ["y"]}}"#,
        false
    )]
    fn a_review_repeats_the_same_spec_of_the_same_user(
        #[case] user: &str,
        #[case] kind: Kind,
        #[case] at: u64,
        #[case] spec: &str,
        #[case] repeats: bool,
    ) {
        let seen = Repeats::default();
        assert_eq!(seen.of(&review("first", "alice", Kind::Run, 1, TASK)), None);
        let found = seen.of(&review("second", user, kind, at, spec));
        assert_eq!(found.as_deref(), repeats.then_some("first"));
    }

    #[test]
    fn the_latest_is_told_and_no_review_repeats_itself() {
        let seen = Repeats::default();
        let mut told = Vec::new();
        for (at, id) in ["1", "2", "2", "3"].into_iter().enumerate() {
            told.push(seen.of(&review(id, "alice", Kind::Run, at as u64, TASK)));
        }
        assert_eq!(
            told,
            [None, Some("1".to_owned()), None, Some("2".to_owned())]
        );
    }

    #[test]
    fn memory_is_bounded() {
        let seen = Repeats::default();
        for at in 0..2 * MOST {
            seen.of(&review("x", &format!("user-{at}"), Kind::Run, 1, TASK));
        }
        let held = seen.seen.lock().unwrap();
        assert!(held.order.len() <= MOST && held.latest.len() <= MOST);
    }
}
