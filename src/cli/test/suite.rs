//! From suite files as typed to cases that can be run: chains built, specs read and edited,
//! expectations compiled. Every problem of every file is gathered; nothing is run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::load::user_state_dir;
use super::expected::Expected;
use super::file::{Case as CaseEntry, PolicyTests};
use super::source::{Source, Sources};
use crate::admission::review::Review;
use crate::admission::schema::SpecSchemas;
use crate::config::offline::{self, Offline};
use crate::config::places::{Places, item, member};
use crate::config::plugin::PluginEntry;
use crate::config::{self, Loaded, Problem, Problems};
use crate::engine::Engine;

/// When a spec is applied if its case does not say: 2026-01-01T00:00:00Z.
pub const AT: Duration = Duration::from_secs(1_767_225_600);

/// A suite, ready to be run.
pub struct Suite {
    /// Its path as it was found.
    pub path: PathBuf,
    pub cases: Vec<Case>,
}

/// One case, ready to be run.
pub struct Case {
    /// Its place in the file.
    pub index: usize,
    pub line: Option<usize>,
    pub name: String,
    pub chain: Arc<Tested>,
    pub review: Arc<Review>,
    pub expected: Arc<Expected>,
}

/// A chain under test.
pub struct Tested {
    pub engine: Engine,
    /// The file in which the chain stands.
    pub origin: PathBuf,
    /// The plugins that are called over HTTP, by name. No test asks them.
    pub left_out: Vec<String>,
}

impl Tested {
    fn new(offline: Offline, origin: &Path, schemas: &Arc<SpecSchemas>) -> Self {
        let mut chain = offline.chain;
        chain.check_specs(Arc::clone(schemas));
        Self {
            engine: Engine::new(chain, offline.deadline),
            origin: origin.to_owned(),
            left_out: offline.left_out,
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        let members = self.engine.chain().members().iter();
        members.map(|member| &*member.name)
    }
}

/// Loads suites. What they share is loaded once.
#[derive(Default)]
pub struct Loader {
    schemas: Arc<SpecSchemas>,
    /// By their paths without detours. None has problems.
    configurations: HashMap<PathBuf, Option<Arc<Tested>>>,
    problems: Problems,
}

impl Loader {
    /// Loads the suite at `path`, or keeps its problems. Blocks.
    pub fn load(&mut self, path: &Path) -> Option<Suite> {
        let parsed = config::read_document(path);
        let suite =
            parsed.then(|loaded| Reading::new(self, path, loaded.places.clone()).suite(loaded));
        match suite {
            Ok(suite) => Some(suite),
            Err(problems) => {
                self.keep(problems);
                None
            }
        }
    }

    /// All that is wrong with what was loaded.
    pub fn into_problems(self) -> Problems {
        self.problems
    }

    fn configuration(&mut self, path: &Path) -> Option<Arc<Tested>> {
        let key = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some(known) = self.configurations.get(&key) {
            return known.clone();
        }
        let parsed = config::read(path);
        let loaded = parsed
            .then(|loaded| offline::of_configuration(loaded, &user_state_dir(), default_time()));
        let tested = match loaded {
            Ok(offline) => Some(Arc::new(Tested::new(offline, path, &self.schemas))),
            Err(problems) => {
                self.keep(problems);
                None
            }
        };
        self.configurations.insert(key, tested.clone());
        tested
    }

    fn keep(&mut self, problems: Problems) {
        for problem in problems {
            self.problems.push(problem);
        }
    }
}

/// One suite that is being read.
struct Reading<'l> {
    loader: &'l mut Loader,
    path: &'l Path,
    places: Places,
    problems: Vec<Problem>,
}

impl<'l> Reading<'l> {
    fn new(loader: &'l mut Loader, path: &'l Path, places: Places) -> Self {
        Self {
            loader,
            path,
            places,
            problems: Vec::new(),
        }
    }

    /// # Errors
    /// All that is wrong with the suite; nothing when it is its configuration that is wrong.
    fn suite(mut self, loaded: Loaded<PolicyTests>) -> Result<Suite, Problems> {
        let file = loaded.file;
        if self.places.line("cases").is_none() {
            // What stands in for them is nobody's.
            return Err(Problems::default());
        }
        let chain = self.chain(&file);
        let directory = directory(self.path);
        let mut problem = |path, message| self.problems.push(self.places.problem(path, message));
        let sources = Sources::new(&file, directory, &mut problem).all();
        let mut cases = Vec::new();
        let mut complete = true;
        for (index, (entry, sources)) in file.cases.iter().zip(sources).enumerate() {
            let at = item("cases", index);
            let chain = self.chain_of_case(entry, &at, chain.as_ref());
            let mut problem =
                |path, message| self.problems.push(self.places.problem(path, message));
            let expected = Arc::new(Expected::compile(
                &entry.expect,
                &member(&at, "expect"),
                chain.as_deref(),
                &mut problem,
            ));
            let (Some(chain), Some(sources)) = (chain, sources) else {
                complete = false;
                continue;
            };
            for source in sources {
                let name = match &source.file {
                    Some(file) => format!("{} [{file}]", entry.name),
                    None => entry.name.clone(),
                };
                cases.push(Case {
                    index,
                    line: self.places.line(&at),
                    name,
                    chain: Arc::clone(&chain),
                    review: review(source),
                    expected: Arc::clone(&expected),
                });
            }
        }
        if !complete || !self.problems.is_empty() {
            return Err(self.problems.into_iter().collect());
        }
        Ok(Suite {
            path: self.path.to_owned(),
            cases,
        })
    }

    /// The chain of the suite. Where it has none, only its cases know whether they need it.
    fn chain(&mut self, file: &PolicyTests) -> Result<Arc<Tested>, Missing> {
        match (&file.configuration, &file.plugins) {
            (Some(_), Some(_)) => {
                self.problem("plugins", "give only one of `configuration` and `plugins`");
                Err(Missing::Wrong)
            }
            (None, None) => Err(Missing::NotGiven),
            (None, Some(plugins)) => self.inline(plugins, "plugins").ok_or(Missing::Wrong),
            (Some(configuration), None) => {
                let path = directory(self.path).join(configuration);
                if !path.is_file() {
                    let message = format!("there is no file {}", path.display());
                    self.problem("configuration", message);
                    return Err(Missing::Wrong);
                }
                let tested = self.loader.configuration(&path).ok_or(Missing::Wrong)?;
                self.not_empty(tested, "configuration")
                    .ok_or(Missing::Wrong)
            }
        }
    }

    fn chain_of_case(
        &mut self,
        case: &CaseEntry,
        at: &str,
        of_suite: Result<&Arc<Tested>, &Missing>,
    ) -> Option<Arc<Tested>> {
        if let Some(plugins) = &case.plugins {
            return self.inline(plugins, &member(at, "plugins"));
        }
        match of_suite {
            Ok(chain) => Some(Arc::clone(chain)),
            Err(Missing::Wrong) => None,
            Err(Missing::NotGiven) => {
                let message = "nothing is tested: give `configuration` or `plugins` at the top level, \
                               or `plugins` here";
                self.problem(at, message);
                None
            }
        }
    }

    fn inline(&mut self, plugins: &[PluginEntry], at: &str) -> Option<Arc<Tested>> {
        match offline::of_plugins(plugins, at, &self.places, &user_state_dir(), default_time()) {
            Ok(offline) => {
                let tested = Tested::new(offline, self.path, &self.loader.schemas);
                self.not_empty(Arc::new(tested), at)
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }

    /// What is expected of a chain without plugins cannot fail.
    fn not_empty(&mut self, tested: Arc<Tested>, at: &str) -> Option<Arc<Tested>> {
        if !tested.engine.chain().members().is_empty() {
            return Some(tested);
        }
        let message = match tested.left_out.is_empty() {
            true => "nothing is tested: the chain has no plugins",
            false => "nothing is tested: all plugins are called over HTTP, which tests leave out",
        };
        self.problem(at, message);
        None
    }

    fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(self.places.problem(path, message));
    }
}

/// Why a suite has no chain.
enum Missing {
    NotGiven,
    /// There is one, and its problems are known.
    Wrong,
}

/// What the paths in a suite are relative to.
fn directory(suite: &Path) -> &Path {
    suite.parent().unwrap_or(Path::new(""))
}

fn default_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + AT
}

fn review(source: Source) -> Arc<Review> {
    Arc::new(Review {
        id: "test".to_owned(),
        kind: source.kind,
        user: source.user,
        project: source.project,
        received: source.at,
        headers: Vec::new(),
        trace: None,
        spec: source.spec,
    })
}
