//! A session as Markdown: what was asked, what each lane answered, where they part, and the figures with where they come
//! from.

use std::{fmt::Write as _, path::PathBuf, time::SystemTime};

use crate::engine::{Lane, Ledger};
use crate::tui::{
    command::Command,
    state::{
        State,
        figures::Provenance,
        session::Session,
        transcript::{Answer, Turn},
    },
    widgets::{Unit, plain::plain, units::duration},
};

/// Asks for the session on show to be written; says so where there is nothing to write.
pub fn ask(state: &mut State, path: Option<PathBuf>) -> Vec<Command> {
    if state.session().is_some_and(|session| !session.turns.is_empty()) {
        return vec![Command::Export { path }];
    }
    state.toast("nothing was said here yet: there is nothing to export", true);
    Vec::new()
}

/// The session on show as Markdown, and the name of a file for it. `when` is the present moment in words.
pub fn markdown(state: &State, when: &str) -> Option<(String, String)> {
    let session = state.session()?;
    let mut text = format!("# {}\n\n", line(&session.name));
    // Writing to a string does not fail, here and below.
    let _ = head(&mut text, state, when);
    if let Some(system) = &session.system {
        let _ = write!(text, "## System message\n\n{}\n", quoted(system));
    }
    for at in 0..session.turns.len() {
        let _ = turn(&mut text, state, session, at);
    }
    let _ = memory(&mut text, state);
    let millis = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Some((plain(&text), format!("kcache-{}-{millis}.md", slug(&session.name))))
}

/// What was run, and how.
fn head(text: &mut String, state: &State, when: &str) -> std::fmt::Result {
    writeln!(text, "- Written by kcache {} at {when} UTC", env!("CARGO_PKG_VERSION"))?;
    match &state.started {
        Some(model) => writeln!(
            text,
            "- Model: {}, {} layers, {} tokens of context, {} threads",
            line(&model.model),
            model.layers,
            model.context,
            model.threads
        )?,
        None => writeln!(text, "- Model: n/a (it was not loaded yet)")?,
    }
    for lane in Lane::ALL {
        let policy = state.metrics.lanes[lane as usize].policy;
        let policy = policy.map_or("n/a (the lane has not started)".to_owned(), |policy| format!("`{policy}`"));
        let budget = match state.budget(lane) {
            Some(bytes) => format!("{} of device memory at most", Unit::Bytes.text(Some(bytes as f64))),
            None => "no device budget".to_owned(),
        };
        writeln!(text, "- {} lane: {policy}, {budget}", state.lane_name(lane))?;
    }
    let sampling = state.sampling;
    let how = match sampling.temperature {
        0.0 => "greedy".to_owned(),
        temperature => format!("temperature {temperature}, seed {}", sampling.seed),
    };
    let stops: Vec<String> = state.stop.texts().iter().map(|stop| format!("{stop:?}")).collect();
    let stops = if stops.is_empty() { String::new() } else { format!(", ending before {}", stops.join(" or ")) };
    writeln!(text, "- Answers: {how}, at most {} tokens{stops}", state.max_tokens)?;
    writeln!(text, "- Policies and settings are those of now; an earlier answer may have been made under others\n")
}

/// A message, its answers and their figures.
fn turn(text: &mut String, state: &State, session: &Session, at: usize) -> std::fmt::Result {
    let turn = &session.turns[at];
    write!(text, "## Message {}\n\n", at + 1)?;
    if let Some(document) = &turn.document {
        write!(text, "About the document {}.\n\n", line(document))?;
    }
    writeln!(text, "{}", quoted(&turn.text))?;
    let [ours, theirs] = Lane::ALL.map(|lane| turn.answer(lane));
    let both = session.lanes.len() == Lane::ALL.len();
    let same = both && ours.text == theirs.text && !ours.text.is_empty() && turn.errors.iter().all(Option::is_none);
    if same {
        let names = Lane::ALL.map(|lane| state.lane_name(lane)).join(" and ");
        write!(text, "### Answer of {names}\n\n{}\n", quoted(&ours.text))?;
    } else {
        for &lane in &session.lanes {
            write!(text, "### Answer of {}\n\n", state.lane_name(lane))?;
            answer(text, turn, lane)?;
        }
    }
    let said =
        |lane: Lane, index| piece(turn.answer(lane), index).map_or("its end".to_owned(), |piece| format!("{piece:?}"));
    if let Some(other) = turn.comparison.as_ref().and_then(|comparison| comparison.otherwise.first()) {
        let (own, index) = (format!("{:?}", other.text), other.index);
        let name = state.lane_name(Lane::KCache);
        let said = said(Lane::Kv, index);
        write!(
            text,
            "{name} would first have said something else at token {}: {own} instead of {said}.\n\n",
            index + 1
        )?;
    }
    if let Some(index) = turn.together.parted {
        let named = |lane| format!("{} has {}", state.lane_name(lane), said(lane, index));
        write!(text, "The lanes part at token {}: {}.\n\n", index + 1, Lane::ALL.map(named).join(", "))?;
    } else if turn.together.both > 0 {
        write!(text, "Every token that both lanes have is the same.\n\n")?;
    }
    figures(text, state, turn)
}

fn answer(text: &mut String, turn: &Turn, lane: Lane) -> std::fmt::Result {
    let answer = turn.answer(lane);
    if !answer.text.is_empty() {
        writeln!(text, "{}", quoted(&answer.text))?;
    }
    match &turn.errors[lane as usize] {
        Some(error) => write!(text, "Not answered to the end: {}\n\n", line(error)),
        None if answer.text.is_empty() => write!(text, "No text.\n\n"),
        None => Ok(()),
    }
}

/// The figures of a message's answers.
fn figures(text: &mut String, state: &State, turn: &Turn) -> std::fmt::Result {
    table_head(text, state)?;
    let unknown = || "n/a".to_owned();
    let earlier = || if turn.earlier { "n/a (an earlier run)".to_owned() } else { unknown() };
    let mut row = |name: &str, from: Provenance, value: &dyn Fn(&Answer) -> String| {
        let [ours, theirs] = Lane::ALL.map(|lane| value(turn.answer(lane)));
        writeln!(text, "| {name} | {ours} | {theirs} | {from} |")
    };
    row("tokens", Provenance::Measured, &|answer| answer.tokens.len().to_string())?;
    row("ended", Provenance::Measured, &|answer| match &answer.end {
        Some((reason, _)) => reason.to_string(),
        None => "n/a (not yet)".to_owned(),
    })?;
    row("time to the first token", Provenance::Measured, &|answer| {
        let ms = answer.end.as_ref().and_then(|(_, usage)| usage.ttft_ms);
        ms.map_or_else(earlier, |ms| duration(Some(ms / 1_000.0)))
    })?;
    row("time to the end", Provenance::Measured, &|answer| {
        let ms = answer.end.as_ref().map(|(_, usage)| usage.total_ms).filter(|_| !turn.earlier);
        ms.map_or_else(earlier, |ms| duration(Some(ms / 1_000.0)))
    })?;
    row("mean kept mass", Provenance::Measured, &|answer| match answer.kept_mass() {
        Some(kept) => Unit::Percent.text(Some(kept)),
        None if turn.earlier => earlier(),
        None if answer.tokens.is_empty() => "n/a (no token)".to_owned(),
        None => "n/a (every row is read)".to_owned(),
    })?;
    row("mean KL of the probes, nats", Provenance::Measured, &|answer| match answer.kl() {
        Some(kl) => format!("{kl:.4}"),
        None if turn.earlier => earlier(),
        None => "n/a (no probe)".to_owned(),
    })?;
    if let Some(comparison) = &turn.comparison {
        let (same, all) = (comparison.same, comparison.kl.len());
        writeln!(text, "| predictions that agree | {same} of {all} | {same} of {all} | {} |", Provenance::Measured)?;
    }
    writeln!(text)
}

/// What the lanes hold now.
fn memory(text: &mut String, state: &State) -> std::fmt::Result {
    write!(text, "## Memory now, all sessions together\n\n")?;
    table_head(text, state)?;
    let device = if state.simulated() { Provenance::Simulated } else { Provenance::Measured };
    let mut row = |name: &str, from: Provenance, bytes: fn(&Ledger) -> u64| {
        let [ours, theirs] = Lane::ALL.map(|lane| match state.metrics.lanes[lane as usize].ledgers.back() {
            Some((_, ledger)) => Unit::Bytes.text(Some(bytes(ledger) as f64)),
            None => "n/a (nothing was held yet)".to_owned(),
        });
        writeln!(text, "| {name} | {ours} | {theirs} | {from} |")
    };
    row("K, V and tail on the device", device, |ledger| ledger.device.k + ledger.device.v + ledger.device.tail)?;
    row("V in host memory", Provenance::Measured, |ledger| ledger.host.v)?;
    row("an ordinary KV cache for the same tokens", Provenance::Derived, |ledger| ledger.kv_equivalent_bytes)
}

fn table_head(text: &mut String, state: &State) -> std::fmt::Result {
    let [ours, theirs] = Lane::ALL.map(|lane| state.lane_name(lane));
    write!(text, "| figure | {ours} | {theirs} | where from |\n|---|---|---|---|\n")
}

/// The text of a token of an answer; `None` beyond its end.
fn piece(answer: &Answer, index: usize) -> Option<String> {
    answer.token_range(index).and_then(|range| answer.text.get(range)).map(str::to_owned)
}

/// Text as a quotation, which nothing in it can end: every line of it is marked.
fn quoted(text: &str) -> String {
    text.trim_end_matches('\n').split('\n').fold(String::new(), |quoted, line| quoted + "> " + line + "\n")
}

fn line(text: &str) -> String {
    text.split(char::is_control).collect::<Vec<_>>().join(" ")
}

/// A session's name as part of a file's name.
fn slug(name: &str) -> String {
    let slug: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
    let words: Vec<&str> = slug.split_whitespace().collect();
    let slug: String = words.join("-").chars().take(40).collect();
    if slug.is_empty() { "session".to_owned() } else { slug }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(slug("Who? ../../etc/passwd"), "who-etc-passwd");
        assert_eq!(slug("日本"), "session");
        assert_eq!(quoted("a\n# b\n"), "> a\n> # b\n");
    }
}
