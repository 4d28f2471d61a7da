//! Every `kcache …` that a document shows is a command line that the program takes.

use clap::{CommandFactory, Parser};
use kcache::cli::Cli;

use super::documents;

/// The commands in a document: lines of code blocks that begin with `$ kcache` or `kcache`, lines with `cargo run … --`,
/// and code spans that begin with `kcache `.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut prose = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            let line = line.trim().trim_start_matches("$ ");
            found.extend(line.starts_with("kcache").then(|| line.to_owned()));
        } else {
            prose.push_str(line);
            prose.push(' ');
        }
    }
    // Outside of fences every second piece between backticks is code; it may run over a line's end.
    let code = prose.split('`').skip(1).step_by(2).map(str::trim);
    found.extend(code.filter(|code| code.starts_with("kcache ")).map(str::to_owned));
    let cargo = |line: &String| line.split_once("cargo run --release -- ").map(|(_, rest)| format!("kcache {rest}"));
    let all = text.lines().map(str::to_owned).filter_map(|line| cargo(&line));
    found.extend(all.map(|line| line.split('`').next().unwrap_or_default().to_owned()));
    found
}

/// What stands for something in a command: `FILE`, `SHELL`, `COMMAND`, `…`.
fn is_pattern(command: &str) -> bool {
    command.contains('…') || command.contains('|') || command.contains("COMMAND") || command.contains("SHELL")
}

/// Whether a line is the bare name of a command, as in a sentence about it: `kcache bench capacity`.
fn is_name(words: &[String]) -> bool {
    let program = Cli::command();
    let found = words[1..].iter().try_fold(&program, |command, word| command.find_subcommand(word));
    found.is_some()
}

#[test]
fn every_command_in_the_documents_is_taken() {
    let mut checked = 0;
    let mut refused = Vec::new();
    for (path, text) in documents() {
        for command in commands(&text).into_iter().filter(|command| !is_pattern(command)) {
            let line = command.split('#').next().unwrap_or_default().trim();
            let words = shlex::split(line).unwrap_or_else(|| panic!("{path}: `{line}` has an open quote"));
            checked += 1;
            match Cli::try_parse_from(&words) {
                Ok(_) => {}
                Err(_) if is_name(&words) => {}
                Err(error) if !error.use_stderr() => {}
                Err(error) => refused.push(format!("{path}: `{line}` is refused: {error}")),
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(checked >= 10, "only {checked} commands were found: the search for them is broken");
}

#[test]
fn commands_are_found_in_prose_and_in_fences() {
    let text =
        "Run `kcache bench\n--ctx 512` or\n\n```console\n$ kcache doctor\n```\nand `cargo run --release -- eval`.";
    assert_eq!(commands(text), ["kcache doctor", "kcache bench --ctx 512", "kcache eval"]);
}
