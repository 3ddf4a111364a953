//! The lines of `install` of a Python plugin: which files each names, whose content decides whether an
//! environment is made anew.

use std::fs;
use std::path::{Path, PathBuf};

use crate::plugins::python::Requirement;

/// What the name of a package in a file ends with.
const PACKAGES: [&str; 3] = [".whl", ".tar.gz", ".zip"];
/// The options that name a list of requirements.
const LISTS: [&str; 4] = ["--requirement", "--constraint", "-r", "-c"];

/// What a line names.
enum Named<'l> {
    /// A list of requirements, after an option.
    List(&'static str, &'l str),
    /// A package in a file, and what follows.
    Package(&'l str, &'l str),
    /// The same by an address, which stays as it is.
    Address(&'l str),
    Nothing,
}

/// One requirement as pip takes it, with the paths of files made absolute.
///
/// # Errors
/// In words, when it is none, or when there is no such file.
pub(super) fn requirement(line: &str) -> Result<Requirement, String> {
    let line = line.trim();
    if line.is_empty() || line.contains(['\n', '\r', '#']) {
        return Err(
            "write one requirement, such as `my-plugin==1.2` or `./wheels/x.whl`".to_owned(),
        );
    }
    let (line, files) = match named(line) {
        Named::Nothing => (line.to_owned(), Vec::new()),
        Named::Address(path) => (line.to_owned(), vec![absolute(path)?]),
        Named::Package(path, more) => {
            let file = absolute(path)?;
            (format!("{}{more}", file.display()), vec![file])
        }
        Named::List(option, path) => {
            let file = absolute(path)?;
            let line = format!("{option} {}", file.display());
            let mut files = Vec::new();
            add_list(file, &mut files);
            (line, files)
        }
    };
    Ok(Requirement { line, files })
}

fn named(line: &str) -> Named<'_> {
    for option in LISTS {
        let rest = line.strip_prefix(option);
        if let Some(rest) = rest.filter(|rest| rest.starts_with([' ', '='])) {
            return Named::List(option, rest[1..].trim_start());
        }
    }
    let address = line
        .split_once("file://")
        .filter(|(before, _)| before.is_empty() || before.trim_end().ends_with('@'));
    if let Some((_, path)) = address {
        let end = path.find([' ', ';', '#']).unwrap_or(path.len());
        return Named::Address(&path[..end]);
    }
    let (path, more) = line.split_at(line.find(' ').unwrap_or(line.len()));
    let is_package = |end: &str| path.ends_with(end) && !path.contains("://");
    match path.starts_with(['.', '/']) || PACKAGES.iter().any(|end| is_package(end)) {
        true => Named::Package(path, more),
        false => Named::Nothing,
    }
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    let file = std::path::absolute(path).map_err(|e| format!("{path}: {e}"))?;
    match file.metadata() {
        Ok(found) if found.is_file() => Ok(file),
        Ok(_) => Err(format!("{path} is no file; build a wheel of it")),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

/// Adds a list and all files that are there of those that it names. What is wrong with it, the
/// installer says.
fn add_list(file: PathBuf, files: &mut Vec<PathBuf>) {
    if files.contains(&file) {
        return;
    }
    let text = fs::read_to_string(&file).unwrap_or_default();
    let beside = file.parent().unwrap_or(Path::new("/")).to_owned();
    files.push(file);
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or_default();
        let line = line.trim().trim_end_matches('\\').trim_end();
        match named(line) {
            Named::List(_, path) => add_list(beside.join(path), files),
            // pip looks for a package from where it runs, uv beside the list.
            Named::Package(path, _) | Named::Address(path) => {
                let places = [
                    beside.join(path),
                    std::path::absolute(path).unwrap_or_default(),
                ];
                for place in places.into_iter().filter(|place| place.is_file()) {
                    if !files.contains(&place) {
                        files.push(place);
                    }
                }
            }
            Named::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::version(" my-plugin==1.2 ", "my-plugin==1.2", None)]
    #[case::hash("a==1 --hash=sha256:00", "a==1 --hash=sha256:00", None)]
    #[case::index(
        "--index-url https://a.example/simple",
        "--index-url https://a.example/simple",
        None
    )]
    #[case::file(
        "./Cargo.toml --hash=sha256:00",
        "{}/Cargo.toml --hash=sha256:00",
        Some("{}/Cargo.toml")
    )]
    #[case::list("-r  ./Cargo.toml", "-r {}/Cargo.toml", Some("{}/Cargo.toml"))]
    #[case::list_by_name("-r Cargo.toml", "-r {}/Cargo.toml", Some("{}/Cargo.toml"))]
    #[case::list_by_its_long_name(
        "--requirement=Cargo.toml",
        "--requirement {}/Cargo.toml",
        Some("{}/Cargo.toml")
    )]
    #[case::constraints("-c Cargo.toml", "-c {}/Cargo.toml", Some("{}/Cargo.toml"))]
    #[case::direct(
        "a @ file://{}/Cargo.toml",
        "a @ file://{}/Cargo.toml",
        Some("{}/Cargo.toml")
    )]
    fn a_requirement_is_a_line_with_absolute_paths(
        #[case] given: &str,
        #[case] line: &str,
        #[case] file: Option<&str>,
    ) {
        let root = env!("CARGO_MANIFEST_DIR");
        let expected = Requirement {
            line: line.replace("{}", root),
            files: file
                .iter()
                .map(|file| file.replace("{}", root).into())
                .collect(),
        };
        assert_eq!(requirement(&given.replace("{}", root)), Ok(expected));
    }

    #[test]
    fn a_list_names_what_its_lists_name() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let (wheel, other) = (at("a-1.whl"), at("b-1.tar.gz"));
        std::fs::write(&wheel, "").unwrap();
        std::fs::write(&other, "").unwrap();
        std::fs::write(
            at("all.txt"),
            "# all\n-r more.txt  # and these\n./a-1.whl\nc==1\n",
        )
        .unwrap();
        let more = format!(
            "-r all.txt\nb @ file://{} \\\n  --hash=sha256:00\n",
            other.display()
        );
        std::fs::write(at("more.txt"), more).unwrap();
        let found = requirement(&format!("-r {}", at("all.txt").display())).unwrap();
        assert_eq!(
            found.files,
            [at("all.txt"), at("more.txt"), other, at("./a-1.whl")]
        );
    }

    #[rstest]
    #[case::empty(" ", "write one requirement")]
    #[case::two("a\n--index-url https://b.example", "write one requirement")]
    #[case::missing("./nowhere.whl", "./nowhere.whl: No such file")]
    #[case::missing_by_its_name("wheels/nowhere-1.whl", "wheels/nowhere-1.whl: No such file")]
    #[case::directory("./src", "./src is no file; build a wheel of it")]
    fn other_requirements_are_refused(#[case] given: &str, #[case] why: &str) {
        let error = requirement(given).unwrap_err();
        assert!(error.starts_with(why), "{error}");
    }
}
