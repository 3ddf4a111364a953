//! Which of the recorded reviews a command is about, as the command line says.

use std::time::{Duration, SystemTime};

use clap::Args;

use crate::admission::review::Kind;
use crate::admission::scope::Globs;
use crate::cli::KindArgument;
use crate::config::units::Period;

/// What is given of a review.
#[derive(Debug, Args)]
pub struct Chosen {
    /// Only reviews from then on: a time in UTC, a date, or how long ago, such as `7d`.
    #[arg(long, value_parser = moment, value_name = "TIME")]
    since: Option<SystemTime>,
    /// Only reviews before then, in the same forms.
    #[arg(long, value_parser = moment, value_name = "TIME")]
    until: Option<SystemTime>,
    /// Only reviews of these kinds.
    #[arg(long = "kind", value_enum, value_delimiter = ',', value_name = "KIND")]
    kinds: Vec<KindArgument>,
    /// Only reviews in these projects. A glob, `!` excludes; may be repeated.
    #[arg(long = "project", value_parser = pattern, value_name = "GLOB")]
    projects: Vec<String>,
    /// Only reviews of these users. A glob, `!` excludes; may be repeated.
    #[arg(long = "user", value_parser = pattern, value_name = "GLOB")]
    users: Vec<String>,
}

/// What a review must be like. What is not given takes all.
pub struct Filter {
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    kinds: Vec<Kind>,
    projects: Globs,
    users: Globs,
}

impl Filter {
    /// # Errors
    /// In words: a pattern that is no glob, or an end that is not after the beginning.
    pub fn new(chosen: &Chosen) -> Result<Self, String> {
        let ends = chosen.since.zip(chosen.until);
        if let Some((since, until)) = ends.filter(|(since, until)| since >= until) {
            let [since, until] = [since, until].map(humantime::format_rfc3339_seconds);
            return Err(format!(
                "nothing lies between `--since` {since} and `--until` {until}, which is not later"
            ));
        }
        Ok(Self {
            since: chosen.since,
            until: chosen.until,
            kinds: chosen.kinds.iter().copied().map(Kind::from).collect(),
            projects: Globs::parse(&chosen.projects)?,
            users: Globs::parse(&chosen.users)?,
        })
    }

    /// Whether a review is wanted. `since` is the first moment that counts, `until` the first that
    /// does not.
    pub fn takes(&self, kind: Kind, project: &str, user: &str, received: SystemTime) -> bool {
        self.since.is_none_or(|since| received >= since)
            && self.until.is_none_or(|until| received < until)
            && (self.kinds.is_empty() || self.kinds.contains(&kind))
            && self.projects.cover(project)
            && self.users.cover(user)
    }
}

/// Reads a moment: an RFC 3339 timestamp in UTC, a date, or how long ago, such as `7d`.
///
/// # Errors
/// In words, when the text is none of these.
pub fn moment(text: &str) -> Result<SystemTime, String> {
    before(text, SystemTime::now())
}

fn before(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let text = text.trim();
    let day = || named_day(text, now);
    let ago = || {
        let ago = text.strip_suffix("ago").unwrap_or(text).trim_end();
        now.checked_sub(Period::parse(ago).ok()?.0)
    };
    time(text).or_else(day).or_else(ago).ok_or_else(|| {
        "write a time like `2026-10-01T12:00:00Z`, `2026-10-01 12:00` (UTC) or `2026-10-01`, `today` or `yesterday` (UTC), or how long ago like `7d`"
            .to_owned()
    })
}

/// A date with or without a time, in UTC unless it says how far from it.
fn time(text: &str) -> Option<SystemTime> {
    let (clock, ahead) = split_offset(text);
    let mut clock = clock.replacen(' ', "T", 1);
    match clock.len() {
        10 => clock.push_str("T00:00:00"),
        16 => clock.push_str(":00"),
        _ => {}
    }
    let moment = humantime::parse_rfc3339(&(clock + "Z")).ok()?;
    match ahead {
        Ahead::East(by) => moment.checked_sub(by),
        Ahead::West(by) => moment.checked_add(by),
    }
}

/// How far a clock is from UTC.
enum Ahead {
    East(Duration),
    West(Duration),
}

fn split_offset(text: &str) -> (&str, Ahead) {
    let none = Ahead::East(Duration::ZERO);
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return (clock, none);
    }
    // The sign of an offset comes behind the date, which has hyphens too.
    let sign = text.get(10..).and_then(|rest| rest.rfind(['+', '-']));
    let Some((clock, offset)) = sign.map(|at| text.split_at(at + 10)) else {
        return (text, none);
    };
    let by = |digits: &str| {
        let (hours, minutes) = digits
            .split_once(':')
            .or_else(|| digits.split_at_checked(2))?;
        let minutes = hours.parse::<u64>().ok()? * 60 + minutes.parse::<u64>().ok()?;
        Some(Duration::from_secs(minutes * 60))
    };
    match (by(&offset[1..]), offset.starts_with('+')) {
        (Some(by), true) => (clock.trim_end(), Ahead::East(by)),
        (Some(by), false) => (clock.trim_end(), Ahead::West(by)),
        (None, _) => (text, none),
    }
}

/// The beginning of a day that has a name, in UTC.
fn named_day(text: &str, now: SystemTime) -> Option<SystemTime> {
    const DAY: u64 = 24 * 3600;
    let today = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs() / DAY;
    let day = match text {
        "today" => today,
        "yesterday" => today.checked_sub(1)?,
        _ => return None,
    };
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(day * DAY))
}

/// Reads one pattern of a list.
///
/// # Errors
/// In words, when it is no glob.
pub fn pattern(text: &str) -> Result<String, String> {
    Globs::parse(&[text]).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    #[rstest]
    #[case("2026-10-01T12:00:00Z", "2026-10-01T12:00:00Z")]
    #[case("2026-10-01", "2026-10-01T00:00:00Z")]
    #[case("2026-10-01T12:00", "2026-10-01T12:00:00Z")]
    #[case("2026-10-01 12:00:30.5", "2026-10-01T12:00:30.5Z")]
    #[case("2026-10-01T12:00:00+02:00", "2026-10-01T10:00:00Z")]
    #[case("2026-10-01 12:00 -0530", "2026-10-01T17:30:00Z")]
    #[case("today", "2026-10-08T00:00:00Z")]
    #[case("yesterday", "2026-10-07T00:00:00Z")]
    #[case("7d", "2026-10-01T08:30:00Z")]
    #[case("10m ago", "2026-10-08T08:20:00Z")]
    #[case("1h30m", "2026-10-08T07:00:00Z")]
    #[case("0s", "2026-10-08T08:30:00Z")]
    fn a_moment_is_a_time_or_how_long_ago(#[case] text: &str, #[case] moment: &str) {
        assert_eq!(before(text, at("2026-10-08T08:30:00Z")), Ok(at(moment)));
    }

    #[rstest]
    #[case("last week")]
    #[case("2026-10-01T12:00:00+2")]
    #[case("2026-13-01")]
    #[case("-7d")]
    #[case("")]
    fn other_moments_are_refused_with_the_accepted_forms(#[case] text: &str) {
        let error = before(text, SystemTime::now()).unwrap_err();
        assert!(
            error.contains("2026-10-01T12:00:00Z") && error.contains("7d"),
            "{error}"
        );
    }

    #[rstest]
    #[case::inside(Kind::Run, "team-a", "alice", 0, true)]
    #[case::last_moment(Kind::Run, "team-a", "alice", 59, true)]
    #[case::too_late(Kind::Run, "team-a", "alice", 60, false)]
    #[case::too_early(Kind::Run, "team-a", "alice", -1, false)]
    #[case::other_kind(Kind::Fleet, "team-a", "alice", 0, false)]
    #[case::other_project(Kind::Run, "main", "alice", 0, false)]
    #[case::excluded_project(Kind::Run, "team-x", "alice", 0, false)]
    #[case::other_user(Kind::Run, "team-a", "bob", 0, false)]
    fn all_that_is_given_must_hold(
        #[case] kind: Kind,
        #[case] project: &str,
        #[case] user: &str,
        #[case] seconds: i64,
        #[case] taken: bool,
    ) {
        let since = at("2026-10-01T12:00:00Z");
        let filter = Filter {
            since: Some(since),
            until: Some(since + Duration::from_secs(60)),
            kinds: vec![Kind::Run, Kind::Volume],
            projects: Globs::parse(&["team-*", "!team-x"]).unwrap(),
            users: Globs::parse(&["a*"]).unwrap(),
        };
        let offset = Duration::from_secs(seconds.unsigned_abs());
        let received = if seconds < 0 {
            since - offset
        } else {
            since + offset
        };
        assert_eq!(filter.takes(kind, project, user, received), taken);
    }
}
