//! Commands that are typed into the input: `/file PATH` and its kin.

use std::path::PathBuf;

use crate::{bench::LoadSpec, cache::Policy, quality::GuardMode};

/// What a line that begins with `/` asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Slash {
    /// `/file PATH [QUESTION]`: attaches a document to the next message here, or sends it with its question at once.
    File {
        /// Where the document lies.
        path: PathBuf,
        /// The question, where one follows the path.
        question: Option<String>,
    },
    /// `/open PATH [QUESTION]`: the same in a new session that is named after the file.
    Open {
        /// Where the document lies.
        path: PathBuf,
        /// The question, where one follows the path.
        question: Option<String>,
    },
    /// `/new [NAME]`
    New(Option<String>),
    /// `/rename NAME`
    Rename(String),
    /// `/close`
    Close,
    /// `/stop`
    Stop,
    /// `/load [sessions=…]`: starts a load, or shows the form for one.
    Load(Option<LoadSpec>),
    /// `/n ROWS`
    N(usize),
    /// `/policy kcache:n=…`
    Policy(Policy),
    /// `/guard off|warn|rollback`
    Guard(GuardMode),
    /// `/help`
    Help,
    /// `/quit`
    Quit,
}

/// The commands, for the hint while one is typed.
pub const USAGE: [(&str, &str); 12] = [
    ("/file PATH [QUESTION]", "attach a document to the message"),
    ("/open PATH [QUESTION]", "a new session about a document"),
    ("/new [NAME]", "a new session"),
    ("/rename NAME", "another name for this session"),
    ("/stop", "stop the answers here"),
    ("/close", "close this session"),
    ("/load sessions=16,context=1024,tokens=64,rate=30", "sessions that come by and by"),
    ("/n ROWS", "rows each head reads"),
    ("/policy kcache:KEY=VALUE,…", "the whole policy of the KCache lane"),
    ("/guard off|warn|rollback", "what the KCache lane's guard does"),
    ("/help", "every key"),
    ("/quit", "quit"),
];

/// Reads a line. `None` where it is no command: text that does not begin with one `/`, or has more than one line.
pub fn parse(line: &str) -> Option<Result<Slash, String>> {
    let line = line.trim();
    if !line.starts_with('/') || line.starts_with("//") || line.contains('\n') {
        return None;
    }
    let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    Some(match (command, rest) {
        ("/file" | "/open", "") => Err(format!("{command}: which file? {command} PATH")),
        ("/file", _) => {
            let (path, question) = path_and_rest(rest);
            Ok(Slash::File { path, question })
        }
        ("/open", _) => {
            let (path, question) = path_and_rest(rest);
            Ok(Slash::Open { path, question })
        }
        ("/new", name) => Ok(Slash::New((!name.is_empty()).then(|| name.to_owned()))),
        ("/rename", "") => Err("/rename: what name? /rename NAME".into()),
        ("/rename", name) => Ok(Slash::Rename(name.to_owned())),
        ("/close", "") => Ok(Slash::Close),
        ("/stop", "") => Ok(Slash::Stop),
        ("/load", "") => Ok(Slash::Load(None)),
        ("/load", text) => text.parse().map(|spec| Slash::Load(Some(spec))).map_err(|error| format!("/load: {error}")),
        ("/n", rows) => match rows.parse() {
            Ok(n) if n >= 1 => Ok(Slash::N(n)),
            _ => Err(format!("/n: a whole number of rows, at least 1, not `{rows}`")),
        },
        ("/policy", text) => text.parse().map(Slash::Policy).map_err(|error| format!("/policy: {error}")),
        ("/guard", mode) => [GuardMode::Off, GuardMode::Warn, GuardMode::Rollback]
            .into_iter()
            .find(|known| known.to_string() == mode)
            .map(Slash::Guard)
            .ok_or_else(|| format!("/guard: off, warn or rollback, not `{mode}`")),
        ("/help", "") => Ok(Slash::Help),
        ("/quit", "") => Ok(Slash::Quit),
        _ => Err(format!(
            "{command} is not a command here; /help lists everything. A second / sends it as text: /{line}"
        )),
    })
}

/// The path, quoted where it has spaces, and what follows it.
fn path_and_rest(text: &str) -> (PathBuf, Option<String>) {
    let (path, rest) = match text.strip_prefix(['"', '\'']) {
        Some(quoted) => quoted.split_once(&text[..1]).unwrap_or((quoted, "")),
        None => text.split_once(char::is_whitespace).unwrap_or((text, "")),
    };
    let rest = rest.trim();
    (PathBuf::from(path), (!rest.is_empty()).then(|| rest.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_not_a_command() {
        for text in ["hello", "", "/a\nb", "a /file b", "//file"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn files_may_be_quoted_and_have_a_question() {
        let file = |text| match parse(text) {
            Some(Ok(Slash::File { path, question })) => (path.display().to_string(), question),
            other => panic!("{other:?}"),
        };
        assert_eq!(file("/file a.md"), ("a.md".into(), None));
        assert_eq!(file("/file a.md Who spoke? "), ("a.md".into(), Some("Who spoke?".into())));
        assert_eq!(file("/file \"my notes.md\" Who?"), ("my notes.md".into(), Some("Who?".into())));
        assert_eq!(file("/file 'open end.md"), ("open end.md".into(), None));
    }

    #[test]
    fn mistakes_say_what_is_expected() {
        for (text, word) in [
            ("/file", "PATH"),
            ("/load rate=0", "`all`"),
            ("/n 0", "at least 1"),
            ("/policy kcache:n=0", "at least 1"),
            ("/guard on", "rollback"),
            ("/fly", "/help"),
        ] {
            let error = parse(text).unwrap().unwrap_err();
            assert!(error.contains(word) && !error.contains('\n'), "{error}");
        }
        assert_eq!(parse("/n 64"), Some(Ok(Slash::N(64))));
        assert_eq!(parse("/guard rollback"), Some(Ok(Slash::Guard(GuardMode::Rollback))));
    }
}
