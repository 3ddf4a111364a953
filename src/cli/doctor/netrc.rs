//! The netrc file, from which Python's `requests` takes credentials: found and read as `requests.utils.get_netrc_auth`
//! and Python's own `netrc` do. Its secrets are used for the canary and never shown.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::address::Address;
use super::environment::Environment;
use super::report::Report;

const CHECK: &str = "netrc";

/// What is sent with a review: the netrc file's, which overrides the URI's.
pub fn check(
    address: &Address,
    environment: &Environment,
    report: &mut Report,
) -> Option<(String, String)> {
    let (host, own) = (&address.host, address.userinfo.clone());
    let Some(path) = find(environment) else {
        if let Some(named) = environment.get("NETRC") {
            let message = format!("NETRC names {named}, which is not there");
            report.fail(CHECK, message, "write that file, or unset NETRC");
        } else {
            report.ok(
                CHECK,
                "there is none; reviews are sent without its credentials",
            );
        }
        return own;
    };
    let name = path.display();
    let place = environment.place(&path);
    let text = match fs::read_to_string(&place) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("{name} cannot be read, so no credentials are sent: {error}");
            report.fail(CHECK, message, "let the dstack server's user read it");
            return own;
        }
    };
    let entries = match parse(&text) {
        Ok(entries) => entries,
        Err(why) => {
            let message =
                format!("{name} cannot be parsed, and requests then silently sends nothing: {why}");
            let mend = format!("write `machine {host} login USER password PASSWORD`");
            report.fail(CHECK, message, mend);
            return own;
        }
    };
    let others = fs::metadata(&place).is_ok_and(|found| found.permissions().mode() & 0o077 != 0);
    let mend = format!("chmod 600 {name}");
    let entry = entries
        .iter()
        .rev()
        .find(|entry| entry.machine.as_deref() == Some(host));
    let entry = entry.or_else(|| entries.iter().rev().find(|entry| entry.machine.is_none()));
    match entry {
        None => report.ok(CHECK, format!("{name} has no entry for {host}")),
        Some(_) if others => {
            report.warn(CHECK, format!("{name} can be read by other users"), mend);
        }
        Some(_) if own.is_some() => {
            let message = format!("the entry for {host} in {name} overrides the URI's credentials");
            let mend = "take the credentials out of the URI";
            report.warn(CHECK, message, mend);
        }
        Some(_) => report.ok(CHECK, format!("{name} has an entry for {host}")),
    }
    entry.map_or(own, |entry| {
        let user = if entry.login.is_empty() {
            &entry.account
        } else {
            &entry.login
        };
        let pair = (user.clone(), entry.password.clone());
        Some(pair).filter(|(user, password)| !(user.is_empty() && password.is_empty()))
    })
}

/// `$NETRC`, else `~/.netrc`, else `~/_netrc`, if it is there.
fn find(environment: &Environment) -> Option<PathBuf> {
    let named = environment.get("NETRC").map(|path| vec![path]);
    // Set but empty, it names a file that is never there.
    let candidates = match (named, environment.has("NETRC")) {
        (Some(named), _) => named,
        (None, true) => Vec::new(),
        (None, false) => vec!["~/.netrc", "~/_netrc"],
    };
    let mut candidates = candidates.into_iter().map(|path| environment.expand(path));
    candidates.find(|path| {
        let found = fs::metadata(environment.place(path));
        !matches!(found, Err(error) if error.kind() == io::ErrorKind::NotFound)
    })
}

/// What is said for one machine, or for every other one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    machine: Option<String>,
    login: String,
    account: String,
    password: String,
}

/// Reads the file's text.
///
/// # Errors
/// In words, without what could be a password.
fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut words = Words {
        lines: text.lines(),
        line: Vec::new().into_iter(),
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            comment if comment.starts_with('#') => words.skip_line(),
            "machine" => entries.push(Entry {
                machine: Some(words.next().ok_or("`machine` without a name")?),
                ..Entry::default()
            }),
            "default" => entries.push(Entry::default()),
            "macdef" => words.skip_macro(),
            key @ ("login" | "user" | "account" | "password") => {
                let value = words.next().unwrap_or_default();
                let entry = entries.last_mut();
                let entry = entry.ok_or("it does not begin with `machine`")?;
                match key {
                    "account" => entry.account = value,
                    "password" => entry.password = value,
                    _ => entry.login = value,
                }
            }
            _ => return Err("a word that is none of a netrc file's".to_owned()),
        }
    }
    Ok(entries)
}

/// The words of a text, line by line.
struct Words<'t> {
    lines: std::str::Lines<'t>,
    line: std::vec::IntoIter<String>,
}

impl Words<'_> {
    fn next(&mut self) -> Option<String> {
        loop {
            match self.line.next() {
                Some(word) => return Some(word),
                None => self.line = tokens(self.lines.next()?).into_iter(),
            }
        }
    }

    fn skip_line(&mut self) {
        self.line = Vec::new().into_iter();
    }

    /// A macro goes on to the next empty line.
    fn skip_macro(&mut self) {
        self.skip_line();
        self.lines.by_ref().find(|line| line.trim().is_empty());
    }
}

/// Words of a line; quotes hold blanks together, a backslash takes the next character as it is.
fn tokens(line: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut token: Option<String> = None;
    let (mut quoted, mut characters) = (false, line.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted => quoted = false,
            '"' if token.is_none() => {
                quoted = true;
                token = Some(String::new());
            }
            '\\' => token.get_or_insert_default().extend(characters.next()),
            character if character.is_whitespace() && !quoted => tokens.extend(token.take()),
            character => token.get_or_insert_default().push(character),
        }
    }
    tokens.extend(token);
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn entry(machine: Option<&str>, login: &str, password: &str) -> Entry {
        Entry {
            machine: machine.map(str::to_owned),
            login: login.to_owned(),
            account: String::new(),
            password: password.to_owned(),
        }
    }

    #[rstest]
    #[case("machine h login a password b", vec![entry(Some("h"), "a", "b")])]
    #[case("machine h\n  login a\n  password b\n", vec![entry(Some("h"), "a", "b")])]
    #[case("# note\nmachine h user a password \"b c\" # d\n", vec![entry(Some("h"), "a", "b c")])]
    #[case(r"machine h login a password b\ #", vec![entry(Some("h"), "a", "b #")])]
    #[case("macdef init\nmachine x\n\ndefault login a password b", vec![entry(None, "a", "b")])]
    #[case("machine h password b", vec![entry(Some("h"), "", "b")])]
    #[case("machine\nh login a password\nb", vec![entry(Some("h"), "a", "b")])]
    #[case("", vec![])]
    fn a_netrc_file_is_read_as_python_does(#[case] text: &str, #[case] expected: Vec<Entry>) {
        assert_eq!(parse(text), Ok(expected));
    }

    #[rstest]
    #[case("login a")]
    #[case("machine")]
    #[case("machine h login a s3cret")]
    fn what_python_refuses_is_refused_without_a_secret(#[case] text: &str) {
        let why = parse(text).unwrap_err();
        assert!(!why.contains("s3cret"), "{why}");
    }
}
