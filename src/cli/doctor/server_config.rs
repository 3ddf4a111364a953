//! The dstack server's own configuration: whether `plugins:` names `rest_plugin`, which a server only warns about.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::environment::Environment;
use super::report::Report;
use crate::config::suggest::nearest;

const CHECK: &str = "config";
const PLUGIN: &str = "rest_plugin";
const DISABLED: &str = "DSTACK_SERVER_CONFIG_DISABLED";

#[derive(Default, Deserialize)]
struct ServerConfig {
    plugins: Option<Vec<String>>,
}

/// Looks at the file at `given`, or at the one that the server would read if that is there.
pub fn check(given: Option<&Path>, environment: &Environment, report: &mut Report) {
    if environment.has(DISABLED) {
        let message = format!("{DISABLED} is set, so plugins never load");
        report.fail(
            CHECK,
            message,
            format!("unset {DISABLED}, be it empty, and restart the dstack server"),
        );
        return;
    }
    let (path, place) = match given {
        Some(path) => (path.to_owned(), path.to_owned()),
        None => {
            let path = own(environment);
            let place = environment.place(&path);
            if !place.exists() {
                return;
            }
            (path, place)
        }
    };
    let name = path.display();
    let mend = format!("write `plugins: [{PLUGIN}]` into {name}, and restart the dstack server");
    let parsed = fs::read_to_string(&place)
        .map_err(|error| error.to_string())
        .and_then(|text| {
            let parsed = serde_yaml::from_str::<Option<ServerConfig>>(&text);
            parsed.map_err(|error| error.to_string())
        });
    let plugins = match parsed {
        Ok(config) => config.unwrap_or_default().plugins.unwrap_or_default(),
        Err(why) => {
            report.fail(CHECK, format!("{name} cannot be read: {why}"), mend);
            return;
        }
    };
    let near = || {
        plugins
            .iter()
            .find(|plugin| nearest(plugin, [PLUGIN]).is_some())
    };
    if plugins.iter().any(|plugin| plugin == PLUGIN) {
        report.ok(CHECK, format!("{name} enables {PLUGIN}"));
    } else if let Some(near) = near() {
        let message =
            format!("{name} enables `{near}`, which the server does not find: it is {PLUGIN}");
        report.fail(CHECK, message, mend);
    } else {
        report.fail(CHECK, format!("{name} does not enable {PLUGIN}"), mend);
    }
}

/// Where the server reads its configuration.
fn own(environment: &Environment) -> PathBuf {
    let directory = environment
        .get("DSTACK_SERVER_DIR")
        .unwrap_or("~/.dstack/server");
    environment.expand(directory).join("config.yml")
}
