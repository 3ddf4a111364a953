//! An environment of Python with a plugin for dstack, and with as much of dstack as a worker needs: the
//! two classes that a plugin is made of, and models that take and write anything.

use std::path::{Path, PathBuf};
use std::process::Command;

const DSTACK: &str = r#"
import copy


class ApplyPolicy:
    def on_apply(self, user, project, spec):
        return self.on_run_apply(user=user, project=project, spec=spec) if type(spec) is RunSpec else spec


class Plugin:
    def get_apply_policies(self):
        return []


class Model:
    class __config__:
        @staticmethod
        def json_dumps(value, default=None):
            import json
            return json.dumps(value)

    def __init__(self, members):
        self.__dict__.update(members)

    @classmethod
    def parse_obj(cls, members):
        return cls(members)

    def dict(self, exclude_unset=False):
        defaults = {} if exclude_unset else {"nodes": None}
        return copy.deepcopy({**defaults, **self.__dict__})


class RunSpec(Model):
    pass


class FleetSpec(Model):
    pass


class VolumeSpec(Model):
    pass


class GatewaySpec(Model):
    pass
"#;

const PYDANTIC: &str = "class ValidationError(ValueError):\n    pass\n";

/// It does to its own process what a run's tag `do` says.
const PLUGIN: &str = r#"
import logging, os, subprocess, sys, time
from dstack.plugins import ApplyPolicy, Plugin

LOG = logging.getLogger("dstack.plugins.house")


class Policy(ApplyPolicy):
    def on_run_apply(self, user, project, spec):
        do = spec.configuration.get("tags", {}).get("do")
        if do == "deny":
            raise ValueError(f"{user} may not do this in {project}")
        if do == "pid":
            raise ValueError(str(os.getpid()))
        if do == "raise":
            raise KeyError("a secret of the plugin")
        if do == "quote":
            raise RuntimeError(repr(spec.configuration))
        if do == "tag":
            spec.configuration["tags"]["by"] = "house"
        if do == "log":
            print("printed")
            LOG.warning("logged")
        if do == "hang":
            subprocess.Popen(["sleep", "600"])
            time.sleep(600)
        if do == "exit":
            os._exit(3)
        if do == "environment":
            raise ValueError(" ".join(sorted(os.environ)))
        return spec


class House(Plugin):
    def get_apply_policies(self):
        return [Policy()]
"#;

/// Makes the environment in this directory and returns its interpreter.
pub fn environment(directory: &Path) -> PathBuf {
    let made = Command::new("python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(directory)
        .output()
        .expect("install python3");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let lib = std::fs::read_dir(directory.join("lib")).unwrap();
    let version = lib.flatten().next().unwrap().path();
    let site = version.join("site-packages");
    for (name, text) in dstack().into_iter().chain(house()) {
        write(&site.join(name), text);
    }
    directory.join("bin/python3")
}

/// What `python3` really runs, which may itself need an environment that the sidecar has not.
pub fn real_python() -> String {
    let mut command = Command::new("python3");
    let asked = command
        .args(["-c", "import sys; print(sys.executable)"])
        .output();
    String::from_utf8(asked.expect("install python3").stdout)
        .unwrap()
        .trim()
        .to_owned()
}

/// Makes wheels of the same in this directory: of dstack and of the plugin.
pub fn wheels(directory: &Path) -> [PathBuf; 2] {
    let wheel = |name: &str, files: Files| {
        let source = directory.join(name);
        for (name, text) in files {
            write(&source.join(name), text);
        }
        let path = directory.join(format!("{name}-py3-none-any.whl"));
        let entries = std::fs::read_dir(source).unwrap();
        let packed = Command::new("python3")
            .args(["-m", "zipfile", "-c"])
            .arg(&path)
            .args(entries.map(|entry| entry.unwrap().path()))
            .status();
        assert!(packed.unwrap().success());
        path
    };
    [wheel("dstack-0.0.1", dstack()), wheel("house-1.2", house())]
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

type Files = Vec<(&'static str, &'static str)>;

fn dstack() -> Files {
    vec![
        ("dstack/__init__.py", ""),
        ("dstack/plugins/__init__.py", DSTACK),
        ("pydantic.py", PYDANTIC),
        (
            "dstack-0.0.1.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: dstack\nVersion: 0.0.1\n",
        ),
        ("dstack-0.0.1.dist-info/WHEEL", WHEEL),
        ("dstack-0.0.1.dist-info/RECORD", ""),
    ]
}

fn house() -> Files {
    vec![
        ("house.py", PLUGIN),
        (
            "house-1.2.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: house\nVersion: 1.2\n",
        ),
        ("house-1.2.dist-info/WHEEL", WHEEL),
        ("house-1.2.dist-info/RECORD", ""),
        (
            "house-1.2.dist-info/entry_points.txt",
            "[dstack.plugins]\nhouse_rules = house:House\nhouse_other = house:House\n",
        ),
    ]
}

const WHEEL: &str =
    "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
