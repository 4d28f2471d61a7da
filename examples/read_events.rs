//! A reader of the JSON events: what each answer of a run took.
//!
//! `kcache --headless --say "Hello" | cargo run --example read_events`, or the name of a file that `--record` wrote.

use std::{
    env,
    error::Error,
    fs::File,
    io::{self, BufRead, BufReader},
};

use kcache::engine::{Event, EventKind};

fn main() -> Result<(), Box<dyn Error>> {
    let lines: Box<dyn BufRead> = match env::args().nth(1) {
        Some(file) => Box::new(BufReader::new(File::open(file)?)),
        None => Box::new(io::stdin().lock()),
    };
    let (mut tokens, mut answers) = (0, 0);
    for line in lines.lines() {
        // One object per line. Other languages read the same fields; they are listed in docs/events.md.
        let event: Event = serde_json::from_str(&line?)?;
        if let EventKind::Finished(finished) = event.kind {
            let usage = &finished.usage;
            let first = usage.ttft_ms.map_or("n/a".to_owned(), |ms| format!("{ms:.0} ms"));
            println!(
                "{:>8.1} s  session {}  {:<6}  {} prompt + {} new tokens, first after {first}, {}",
                event.t_ms / 1e3,
                finished.session.0,
                finished.lane.to_string(),
                usage.prompt_tokens,
                usage.completion_tokens,
                finished.reason
            );
            tokens += usage.completion_tokens;
            answers += 1;
        }
    }
    println!("{answers} answers, {tokens} tokens");
    Ok(())
}
