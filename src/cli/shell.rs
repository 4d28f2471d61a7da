//! `kcache completions` and `kcache man`, both made from the definition of the command line.

use std::{io, process::ExitCode};

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

use super::{Failure, output};

/// Flags of `kcache completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell to write for
    pub shell: Shell,
}

/// Writes the completions of a shell to stdout, for the whole command line of `program`.
pub fn completions(args: &CompletionsArgs, mut program: Command) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "kcache", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the manual page of `program` and its commands to stdout.
pub fn man(mut program: Command) -> Result<ExitCode, Failure> {
    let mut page = Vec::new();
    program.build();
    let write = |page: &mut Vec<u8>| -> io::Result<()> {
        clap_mangen::Man::new(program.clone()).render(page)?;
        for sub in program.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let man = clap_mangen::Man::new(sub.clone()).title(format!("kcache {}", sub.get_name()));
            man.render_description_section(page)?;
            man.render_synopsis_section(page)?;
            man.render_options_section(page)?;
        }
        Ok(())
    };
    write(&mut page).context("the manual page cannot be made")?;
    output::print(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}
