//! Tells the program its version: the package's, and in a release build the commit it was made from.
//!
//! Only a release build watches for commits; a development build would be compiled anew after each of them.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let what = if release { commit() } else { Some("development build".to_owned()) };
    let suffix = what.map(|what| format!(" ({what})")).unwrap_or_default();
    // `cargo run` hands this variable on to the program, which refuses those that begin with KCACHE_ and are no settings.
    println!("cargo::rustc-env=BUILD_VERSION={version}{suffix}");
}

/// The commit of this repository, where it is one and git is there to be asked.
fn commit() -> Option<String> {
    // Unpacked inside somebody else's repository, the commit would be theirs.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = env::var("CARGO_MANIFEST_DIR").ok()?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    // HEAD changes with the branch, its log with every commit.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=9", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}
