//! From what a server enables and what is installed there to the sidecar's chain: which plugins, in
//! which order, and what whoever migrates has to know. Reads and writes nothing.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::installed::{Found, Installed};
use super::server::REST_PLUGIN;
use crate::cli::test::yaml::flow;

/// The chain that does what the server's plugins did.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    order: Order,
    python: Vec<Plugin>,
    /// The plugin server that `rest_plugin` asks.
    rest: Option<Rest>,
    /// Names that the server does not find, and so does not run.
    missing: Vec<String>,
    /// Plugins that the server finds, and does not run.
    pub not_enabled: Vec<String>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Known,
    Listed,
}

#[derive(Debug, PartialEq, Eq)]
struct Plugin {
    name: String,
    interpreter: Option<PathBuf>,
    /// What it comes from and needs, when that is known.
    found: Option<(Found, String)>,
}

/// Where a REST plugin server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    url: String,
    ca_file: Option<PathBuf>,
    /// The user in the URL, who stands elsewhere in ours.
    user: Option<String>,
}

impl Rest {
    /// From the server's `DSTACK_PLUGIN_SERVICE_URI` and `REQUESTS_CA_BUNDLE`.
    pub fn new(uri: &str, ca_file: Option<PathBuf>) -> Self {
        let (scheme, rest) = uri.split_once("://").unwrap_or(("http", uri));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        let user = credentials.map(|text| text.split(':').next().unwrap_or_default().to_owned());
        Self {
            url: format!("{scheme}://{host}{}", path.trim_end_matches('/')),
            // The server takes a directory, too.
            ca_file: ca_file.filter(|path| scheme == "https" && path.is_file()),
            user,
        }
    }
}

impl Plan {
    /// `interpreter` is the server's Python, `installed` what it says and `rest` where the server's
    /// `rest_plugin` asks.
    pub fn new(
        enabled: &[String],
        interpreter: Option<&Path>,
        installed: Result<&Installed, &str>,
        rest: Option<Rest>,
    ) -> Self {
        let mut plan = Self {
            order: Order::Known,
            python: Vec::new(),
            rest: None,
            missing: Vec::new(),
            not_enabled: Vec::new(),
            warnings: Vec::new(),
        };
        if enabled.iter().any(|name| name == REST_PLUGIN) {
            match &rest {
                None => plan.warnings.push(format!(
                    "`{REST_PLUGIN}` is enabled, and where it asks is not known: run this with the server's \
                     DSTACK_PLUGIN_SERVICE_URI, or add a `rest` plugin at the end of the chain"
                )),
                Some(Rest { user: Some(_), .. }) => plan.warnings.push(format!(
                    "write the password that is in DSTACK_PLUGIN_SERVICE_URI into the `passwordFile` of `{REST_PLUGIN}`"
                )),
                Some(_) => {}
            }
            plan.rest = rest;
        }
        let wanted = Vec::from_iter(enabled.iter().filter(|name| *name != REST_PLUGIN));
        let known = installed.and_then(|installed| {
            let none =
                !wanted.is_empty() && wanted.iter().all(|name| installed.plugin(name).is_none());
            match none {
                true => Err("it has none of these plugins, so it is not the server's"),
                false => Ok(installed),
            }
        });
        match known {
            Ok(installed) => plan.in_order(&wanted, interpreter, installed),
            Err(why) => plan.as_listed(&wanted, interpreter, why),
        }
        plan
    }

    /// In the order of the entry points, which is the server's.
    fn in_order(&mut self, wanted: &[&String], interpreter: Option<&Path>, installed: &Installed) {
        let dstack = installed.dstack.clone().unwrap_or_default();
        for found in &installed.found {
            if wanted.contains(&&found.name) {
                self.python.push(Plugin {
                    name: found.name.clone(),
                    interpreter: interpreter.map(Path::to_owned),
                    found: Some((found.clone(), dstack.clone())),
                });
            } else if found.name != REST_PLUGIN {
                self.not_enabled.push(found.name.clone());
            }
        }
        for name in wanted {
            if installed.plugin(name).is_none() {
                self.missing.push((*name).clone());
                self.warnings.push(format!(
                    "`{name}` is enabled, but not found: the server only warns of that and runs without it, \
                     so it is left out"
                ));
            }
        }
    }

    fn as_listed(&mut self, wanted: &[&String], interpreter: Option<&Path>, why: &str) {
        if wanted.is_empty() {
            return;
        }
        self.order = Order::Listed;
        self.python = wanted
            .iter()
            .map(|name| Plugin {
                name: (*name).clone(),
                interpreter: interpreter.map(Path::to_owned),
                found: None,
            })
            .collect();
        self.warnings.push(format!(
            "the plugins stand in the order of the list, which need not be the one in which the server runs them: \
             the server's Python was not asked ({why}); name it with --interpreter"
        ));
    }

    /// Whether there is nothing to put into a chain.
    pub fn is_empty(&self) -> bool {
        self.python.is_empty() && self.rest.is_none()
    }

    /// The sidecar's configuration.
    pub fn configuration(&self, server_config: &Path) -> String {
        let mut text = format!(
            "# The plugins of the dstack server, in the order {}.\n\
             # Made from {} by `dstack-admission migrate`.\n\
             apiVersion: dstack-admission/v1\n\
             kind: AdmissionConfiguration\n\
             \n\
             plugins:\n",
            match self.order {
                Order::Known => "in which it ran them",
                Order::Listed => "of its list, which need not be the one in which it ran them",
            },
            server_config.display()
        );
        for plugin in &self.python {
            plugin.write(&mut text);
        }
        for name in &self.missing {
            let _ = writeln!(text, "  # {} was enabled, but not found.", scalar(name));
        }
        if let Some(rest) = &self.rest {
            rest.write(&mut text);
        }
        text
    }
}

impl Plugin {
    fn write(&self, text: &mut String) {
        let name = scalar(&self.name);
        let _ = writeln!(text, "  - name: {name}\n    python:\n      plugin: {name}");
        if let Some(interpreter) = &self.interpreter {
            let interpreter = scalar(&interpreter.to_string_lossy());
            let _ = writeln!(text, "      interpreter: {interpreter}");
        }
        if let Some((found, dstack)) = &self.found
            && let (Some(package), Some(version)) = (&found.package, &found.version)
        {
            let _ = match found.local {
                true => writeln!(
                    text,
                    "      # {package} {version} came from a file or folder. In an environment of its own, from a wheel:\n\
                     \x20     # install: [./{}-{version}-py3-none-any.whl, dstack=={dstack}]",
                    package.replace(['-', '.'], "_")
                ),
                false => writeln!(
                    text,
                    "      # In an environment of its own, instead:\n\
                     \x20     # install: [{package}=={version}, dstack=={dstack}]"
                ),
            };
        }
    }
}

impl Rest {
    fn write(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "  # Where the server's `{REST_PLUGIN}` asked.\n  - name: {REST_PLUGIN}\n    rest:\n      url: {}",
            scalar(&self.url)
        );
        if let Some(file) = &self.ca_file {
            let _ = writeln!(text, "      caFile: {}", scalar(&file.to_string_lossy()));
        }
        if let Some(user) = &self.user {
            let user = scalar(user);
            let _ = writeln!(
                text,
                "      basic: {{username: {user}, passwordFile: ./rest_plugin.password}}"
            );
        }
        if self.is_plain_beyond_loopback() {
            text.push_str("      allowPlainHttp: true\n");
        }
    }

    fn is_plain_beyond_loopback(&self) -> bool {
        let Ok(uri) = self.url.parse::<http::Uri>() else {
            return false;
        };
        let host = uri.host().unwrap_or_default();
        let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let is_loopback = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
        uri.scheme_str() == Some("http") && !is_loopback
    }
}

fn scalar(text: &str) -> String {
    flow(&text.into())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn installed(names: &[&str]) -> Installed {
        let found = names.iter().map(|name| Found {
            name: (*name).to_owned(),
            package: Some(format!("{name}-plugin")),
            version: Some("1.2".to_owned()),
            local: *name == "local",
        });
        Installed {
            python: "3.11.4".to_owned(),
            dstack: Some("0.22.5".to_owned()),
            found: found.collect(),
        }
    }

    fn plan(enabled: &[&str], installed: Result<&Installed, &str>, rest: Option<Rest>) -> Plan {
        let enabled = Vec::from_iter(enabled.iter().map(|name| (*name).to_owned()));
        Plan::new(&enabled, Some(Path::new("/venv/python")), installed, rest)
    }

    #[test]
    fn the_chain_has_the_order_of_the_entry_points_and_the_plugin_server_last() {
        let installed = installed(&["b", "other", "local"]);
        let rest = Rest::new("http://plugins.internal:8000/", None);
        let plan = plan(
            &["rest_plugin", "local", "gone", "b"],
            Ok(&installed),
            Some(rest),
        );
        assert_eq!(plan.not_enabled, ["other"]);
        insta::assert_snapshot!(plan.warnings.join("\n"), @"`gone` is enabled, but not found: the server only warns of that and runs without it, so it is left out");
        insta::assert_snapshot!(plan.configuration(Path::new("/server/config.yml")), @r#"
        # The plugins of the dstack server, in the order in which it ran them.
        # Made from /server/config.yml by `dstack-admission migrate`.
        apiVersion: dstack-admission/v1
        kind: AdmissionConfiguration

        plugins:
          - name: b
            python:
              plugin: b
              interpreter: /venv/python
              # In an environment of its own, instead:
              # install: [b-plugin==1.2, dstack==0.22.5]
          - name: local
            python:
              plugin: local
              interpreter: /venv/python
              # local-plugin 1.2 came from a file or folder. In an environment of its own, from a wheel:
              # install: [./local_plugin-1.2-py3-none-any.whl, dstack==0.22.5]
          # gone was enabled, but not found.
          # Where the server's `rest_plugin` asked.
          - name: rest_plugin
            rest:
              url: "http://plugins.internal:8000"
              allowPlainHttp: true
        "#);
    }

    #[rstest]
    #[case::no_interpreter(Err("there is none"), "was not asked (there is none)")]
    #[case::of_another(Ok(&["x"][..]), "(it has none of these plugins, so it is not the server's)")]
    fn what_cannot_be_asked_is_taken_as_listed_and_said(
        #[case] known: Result<&[&str], &str>,
        #[case] why: &str,
    ) {
        let known = known.map(installed);
        let plan = plan(&["b", "a"], known.as_ref().map_err(|why| *why), None);
        assert!(plan.warnings[0].contains(why), "{:?}", plan.warnings);
        let text = plan.configuration(Path::new("config.yml"));
        assert!(text.find("- name: b").unwrap() < text.find("- name: a").unwrap());
        assert!(!text.contains("install"), "{text}");
    }

    #[test]
    fn a_plugin_server_whose_address_is_unknown_is_told() {
        let unknown = plan(&["rest_plugin"], Ok(&installed(&[])), None);
        assert!(unknown.is_empty());
        assert!(unknown.warnings[0].contains("DSTACK_PLUGIN_SERVICE_URI"));
    }

    #[rstest]
    #[case::loopback("http://localhost:8000", "http://localhost:8000", None, false)]
    #[case::plain("http://plugins:8000/a/", "http://plugins:8000/a", None, true)]
    #[case::tls("https://plugins", "https://plugins", None, false)]
    #[case::credentials("https://u:p@plugins/a", "https://plugins/a", Some("u"), false)]
    fn where_a_plugin_server_is_becomes_settings(
        #[case] uri: &str,
        #[case] url: &str,
        #[case] user: Option<&str>,
        #[case] plain: bool,
    ) {
        let rest = Rest::new(uri, None);
        assert_eq!((&*rest.url, rest.user.as_deref()), (url, user));
        assert_eq!(rest.is_plain_beyond_loopback(), plain);
    }
}
