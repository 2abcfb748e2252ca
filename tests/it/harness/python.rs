//! Python with packages from `pip`, in an environment of its own under `target/`, for tests against tools that others wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// An environment with exactly these packages (`name==version`), without what they depend on; kept for the next run.
pub fn with(packages: &[&str]) -> Python {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = format!("python-{}", packages.join("-").replace("==", "-"));
    let ready = root.join(&name);
    if !ready.is_dir() {
        // Made aside, so that one that was interrupted is not taken for ready. An environment can be moved as long as it is called by
        // its `python`, whose path is looked up anew.
        let aside = root.join(format!("{name}.{}", std::process::id()));
        fs::remove_dir_all(&aside).ok();
        make(&aside);
        let python = aside.join("bin/python");
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
            "--no-input",
        ];
        let installed = run(Command::new(&python).args(pip).args(packages));
        assert!(
            installed.status.success(),
            "pip could not install {packages:?}: {installed:?}"
        );
        if fs::rename(&aside, &ready).is_err() {
            // Another run was faster.
            fs::remove_dir_all(&aside).ok();
        }
    }
    Python(ready.join("bin/python"))
}

fn make(directory: &Path) {
    let venv = || {
        let mut command = Command::new("python3");
        run(command.args(["-m", "venv"]).arg(directory))
    };
    let mut made = venv();
    if !made.status.success() && Path::new("/usr/bin/apt-get").exists() {
        fs::remove_dir_all(directory).ok();
        let mut install = Command::new("apt-get");
        run(install.args(["install", "--yes", "--quiet", "python3-venv"]));
        made = venv();
    }
    assert!(
        made.status.success(),
        "`python3 -m venv` does not run here (Debian, Ubuntu: `sudo apt-get install python3-venv`): {made:?}"
    );
}

fn run(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

pub struct Python(PathBuf);

impl Python {
    /// Runs a script with an argument, and gives what it prints.
    pub fn run(&self, script: &str, argument: &Path) -> String {
        let output = run(Command::new(&self.0).args(["-c", script]).arg(argument));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}
