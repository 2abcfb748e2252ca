//! What the command line says when something is wrong: where, what was expected, what to do.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use star_rating::variant::committed_directory;

use crate::tiny::scratch;

fn star_rating(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_star-rating"))
        .args(arguments)
        .env_remove("STAR_RATING_CACHE")
        .output()
        .unwrap()
}

fn assert_fails(arguments: &[&str], code: i32, expected: &[&str]) {
    let output = star_rating(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    for part in expected {
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

fn any_variant() -> String {
    star_rating::variant::load_all(&committed_directory()).unwrap();
    let mut files: Vec<_> = fs::read_dir(committed_directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files[0].to_str().unwrap().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_wrong_command_line_exits_64() {
    assert_fails(&["serve"], 64, &["--variant"]);
    assert_fails(&["train"], 64, &["--variant", "--all"]);
    assert_fails(&["dance"], 64, &["dance"]);
    assert!(star_rating(&["--help"]).status.success());
}

#[test]
fn missing_weights_and_reviews_name_the_command_that_gets_them() {
    let empty = scratch("empty-cache");
    let variant = any_variant();
    let cache = ["--cache", text(&empty)];
    for arguments in [
        [
            &["serve", "--listen", "127.0.0.1:0", "--variant", &variant][..],
            &cache,
        ]
        .concat(),
        [&["train", "--variant", &variant][..], &cache].concat(),
        [&["predict"][..], &cache].concat(),
    ] {
        assert_fails(&arguments, 1, &["star-rating fetch", "is missing"]);
    }
    fs::remove_dir_all(empty).unwrap();
}

#[test]
fn bad_variant_files_are_shown_with_their_place() {
    let directory = scratch("variants");
    let missing = directory.join("missing.toml");
    assert_fails(
        &["serve", "--variant", text(&missing)],
        1,
        &["missing.toml"],
    );
    let bad = directory.join("bad.toml");
    fs::write(&bad, "description = \"x\"\nlayers = \"two\"\n").unwrap();
    assert_fails(
        &["serve", "--variant", text(&bad)],
        1,
        &["bad.toml", "line 2", "invalid type"],
    );
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_port_in_use_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    assert_fails(
        &["serve", "--variant", &any_variant(), "--listen", &address],
        1,
        &[&address, "choose another port"],
    );
}

#[test]
fn an_unusable_cache_is_named() {
    let directory = scratch("not-a-folder");
    let file = directory.join("file");
    fs::write(&file, "").unwrap();
    assert_fails(
        &["fetch", "--cache", text(&file.join("cache"))],
        1,
        &["cannot make the folder", "--cache"],
    );
    fs::remove_dir_all(directory).unwrap();
}
