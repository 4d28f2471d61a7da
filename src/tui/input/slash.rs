//! Commands that are typed into the composer: `/file PATH` and its kin.

use std::path::PathBuf;

use crate::{bench::WorkloadSpec, cache::Policy, quality::GuardMode};

/// What a line that begins with `/` asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Slash {
    /// `/file PATH [QUESTION]`: attaches a document to the next message here, or sends it with its question at once.
    File {
        path: PathBuf,
        /// The question, where one follows the path.
        question: Option<String>,
    },
    /// `/open PATH [QUESTION]`: the same in a new session that is named after the file.
    Open {
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
    Load(Option<WorkloadSpec>),
    /// `/n ROWS`
    N(usize),
    /// `/policy kcache:n=…`
    Policy(Policy),
    /// `/guard off|warn|rollback`
    Guard(GuardMode),
    /// `/copy`: the answer, to the terminal's clipboard.
    Copy,
    /// `/export [PATH]`: the session as Markdown.
    Export(Option<PathBuf>),
    /// `/edit`: the message in the user's editor.
    Edit,
    /// `/system TEXT`: the system message of this session while nothing was said in it, else of a new one.
    System(String),
    /// `/stop-at [TEXT]`: answers end before this text, too; without it, no text ends them.
    StopAt(Option<String>),
    /// `/keep`
    Keep,
    /// `/help`
    Help,
    /// `/quit`
    Quit,
}

/// The commands, for the hint while one is typed.
pub const USAGE: [(&str, &str); 18] = [
    ("/file PATH [QUESTION]", "attach a document to the message"),
    ("/open PATH [QUESTION]", "a new session about a document"),
    ("/new [NAME]", "a new session"),
    ("/rename NAME", "another name for this session"),
    ("/system TEXT", "a system message, here or in a new session"),
    ("/stop", "stop the answers here"),
    ("/stop-at TEXT", "end answers before this text; without TEXT, before none"),
    ("/copy", "copy the answer"),
    ("/export [PATH]", "this session as Markdown"),
    ("/edit", "the message in your editor"),
    ("/close", "close this session"),
    ("/load sessions=16,context=1024,tokens=64,rate=30", "sessions that come by and by"),
    ("/n ROWS", "rows each head reads"),
    ("/policy kcache:KEY=VALUE,…", "the whole policy of the KCache lane"),
    ("/guard off|warn|rollback", "what the KCache lane's guard does"),
    ("/keep", "the policy and the budgets in your configuration"),
    ("/help", "every key"),
    ("/quit", "quit"),
];

/// Reads a line. `None` where it is no command: text that does not begin with one `/`, or has more than one line.
pub fn parse(line: &str) -> Option<Result<Slash, String>> {
    let line = line.trim();
    if !line.starts_with('/') || line.starts_with("//") {
        return None;
    }
    // What an editor brings may be a system message of several lines; any other text of several lines is a message.
    if line.contains('\n') && line.split_whitespace().next() != Some("/system") {
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
        ("/copy", "") => Ok(Slash::Copy),
        ("/export", "") => Ok(Slash::Export(None)),
        ("/export", path) => match path_and_rest(path) {
            (path, None) => Ok(Slash::Export(Some(path))),
            (_, Some(rest)) => Err(format!("/export: one path, quoted where it has blanks, without `{rest}`")),
        },
        ("/edit", "") => Ok(Slash::Edit),
        ("/system", "") => Err("/system: what text? /system TEXT".into()),
        ("/system", text) => Ok(Slash::System(text.to_owned())),
        ("/stop-at", "") => Ok(Slash::StopAt(None)),
        ("/stop-at", text) => spelled(text).map(|text| Slash::StopAt(Some(text))),
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
        ("/keep", "") => Ok(Slash::Keep),
        ("/help", "") => Ok(Slash::Help),
        ("/quit", "") => Ok(Slash::Quit),
        _ => Err(format!(
            "{command} is not a command here; /help lists everything. A second / sends it as text: /{line}"
        )),
    })
}

/// A text as it is typed on one line: in quotes where blanks around it count, `\n` is a line break, `\t` a tab.
fn spelled(text: &str) -> Result<String, String> {
    let inside = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let mut spelled = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        spelled.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c @ ('\\' | '"')) => c,
                _ => return Err(r#"/stop-at: after \ comes n, t, " or another \"#.into()),
            },
            c => c,
        });
    }
    Ok(spelled)
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
    fn texts_are_spelled_on_one_line() {
        let stop = |text: &str| match parse(text) {
            Some(Ok(Slash::StopAt(text))) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(stop("/stop-at ###"), Some("###".into()));
        assert_eq!(stop(r#"/stop-at "\nUser: ""#), Some("\nUser: ".into()));
        assert_eq!(stop(r"/stop-at a\\b\t"), Some("a\\b\t".into()));
        assert_eq!(stop("/stop-at"), None);
        assert!(parse(r"/stop-at \x").unwrap().unwrap_err().contains("after"));
        assert_eq!(parse("/system Be brief.\nNo lists."), Some(Ok(Slash::System("Be brief.\nNo lists.".into()))));
        assert_eq!(parse("/export 'my notes.md'"), Some(Ok(Slash::Export(Some("my notes.md".into())))));
    }

    #[test]
    fn mistakes_say_what_is_expected() {
        for (text, word) in [
            ("/file", "PATH"),
            ("/load rate=0", "`all`"),
            ("/n 0", "at least 1"),
            ("/policy kcache:n=0", "at least 1"),
            ("/guard on", "rollback"),
            ("/system", "what text"),
            ("/export a b", "one path"),
            ("/fly", "/help"),
        ] {
            let error = parse(text).unwrap().unwrap_err();
            assert!(error.contains(word) && !error.contains('\n'), "{error}");
        }
        assert_eq!(parse("/n 64"), Some(Ok(Slash::N(64))));
        assert_eq!(parse("/guard rollback"), Some(Ok(Slash::Guard(GuardMode::Rollback))));
    }
}
