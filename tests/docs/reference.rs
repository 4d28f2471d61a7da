//! `docs/cli.md` from the flags that the program takes.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};
use kcache::cli::Cli;

use super::compare;

/// A command and those below it.
fn describe(command: &Command, name: &str, out: &mut String) {
    if command.is_hide_set() {
        return;
    }
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    writeln!(out, "## `{name}`\n\n{}\n", paragraph(&about)).unwrap();
    let arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version"))
        .filter(|argument| name == "kcache" || !argument.is_global_set())
        .collect();
    if !arguments.is_empty() {
        writeln!(out, "| flag | means |\n|---|---|").unwrap();
        arguments
            .iter()
            .for_each(|argument| writeln!(out, "| {} | {} |", spelling(argument), meaning(argument)).unwrap());
        writeln!(out).unwrap();
    }
    let below = command.get_subcommands().filter(|below| below.get_name() != "help");
    below.for_each(|below| describe(below, &format!("{name} {}", below.get_name()), out));
}

fn spelling(argument: &Arg) -> String {
    let value = argument.get_value_names().filter(|_| argument.get_action().takes_values());
    let value = value.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    match (argument.get_long(), value) {
        (Some(long), Some(value)) => format!("`--{long} {value}`"),
        (Some(long), None) => format!("`--{long}`"),
        (None, value) => format!("`{}`", value.unwrap_or_else(|| argument.get_id().to_string().to_uppercase())),
    }
}

fn meaning(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut meaning = paragraph(&help).replace('|', "\\|");
    let values: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if argument.get_action().takes_values() && !values.is_empty() {
        write!(meaning, " One of {}.", values.join(", ")).unwrap();
    }
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        write!(meaning, " Default: {}.", defaults.join(", ")).unwrap();
    }
    meaning
}

/// One line, with a full stop at the end.
fn paragraph(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() || line.ends_with(['.', '!', '?', ':']) { line } else { format!("{line}.") }
}

#[test]
fn the_reference_of_commands_is_up_to_date() {
    let mut command = Cli::command();
    command.build();
    let mut out = String::new();
    describe(&command, "kcache", &mut out);
    compare("docs/cli.md", &out);
}
