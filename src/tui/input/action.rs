//! Everything a key can do. The names are the vocabulary of `[keys]` in the configuration, the doc comments are the
//! help texts, and the default keys are the defaults: help and footer are made from this one table.

use std::{fmt, str::FromStr};

/// Where a binding works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Everywhere; keys that type a character only while the composer is not focused.
    Always,
    /// While the composer is focused.
    Composer,
    /// While the list of sessions is focused.
    Sessions,
    /// While a transcript is focused.
    Transcript,
    /// While the charts are focused.
    Charts,
    /// On the attention view.
    Attention,
}

/// The headings of the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Talking.
    Chat,
    /// The list of sessions.
    Sessions,
    /// What an operator changes.
    Knobs,
    /// Charts and time.
    Charts,
    /// The screen.
    Screen,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

macro_rules! actions {
    ($( #[doc = $doc:literal] $variant:ident = $name:literal, $short:literal, $group:ident, $scope:ident, [$($key:literal),*]; )+) => {
        /// One thing that a key does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Action {
            $( #[doc = $doc] $variant, )+
        }

        impl Action {
            /// Every action, in the order of the help.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// Its name in the configuration.
            pub fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }

            /// A word or two for the footer.
            pub fn short(self) -> &'static str {
                match self { $( Self::$variant => $short, )+ }
            }

            /// What it does, in a sentence.
            pub fn help(self) -> &'static str {
                match self { $( Self::$variant => $doc.trim_ascii(), )+ }
            }

            /// Under which heading the help lists it.
            pub fn group(self) -> Group {
                match self { $( Self::$variant => Group::$group, )+ }
            }

            /// Where its keys work.
            pub fn scope(self) -> Scope {
                match self { $( Self::$variant => Scope::$scope, )+ }
            }

            /// The keys it has without configuration.
            pub fn default_keys(self) -> &'static [&'static str] {
                match self { $( Self::$variant => &[$($key),*], )+ }
            }
        }
    };
}

actions! {
    /// Sends the message to both lanes
    Send = "send", "send", Chat, Composer, ["enter"];
    /// Begins a new line of the message
    Newline = "newline", "line", Chat, Composer, ["alt-enter", "ctrl-j", "shift-enter"];
    /// Opens the message in your editor, $VISUAL or $EDITOR
    Edit = "edit", "editor", Chat, Always, ["ctrl-g", "e"];
    /// Earlier message of this history, in an empty input
    HistoryPrevious = "history-previous", "history", Chat, Composer, ["up"];
    /// Later message of this history
    HistoryNext = "history-next", "history", Chat, Composer, ["down"];
    /// Leaves the input, so that plain letters are commands
    LeaveComposer = "leave-input", "commands", Chat, Composer, ["esc"];
    /// Goes to the input
    FocusComposer = "focus-input", "type", Chat, Always, ["i"];
    /// Goes to the input and begins a command such as /file PATH
    SlashCommand = "slash-command", "command", Chat, Always, ["/"];
    /// Stops the answers of this session
    Stop = "stop", "stop", Chat, Always, ["ctrl-x"];
    /// Compares the lanes token by token: both are fed what KV says, from the next message on; once more ends it
    Compare = "compare", "compare", Chat, Always, ["c", "alt-c"];
    /// Copies the answer on show: the focused lane's, else KCache's
    Copy = "copy", "copy", Chat, Always, ["y", "alt-y"];
    /// Writes this session as Markdown
    Export = "export", "export", Chat, Always, ["E", "alt-e"];
    /// Scrolls the transcripts a page up
    PageUp = "page-up", "scroll", Chat, Always, ["pageup"];
    /// Scrolls the transcripts a page down
    PageDown = "page-down", "scroll", Chat, Always, ["pagedown"];
    /// Scrolls this transcript a line up
    ScrollUp = "scroll-up", "scroll", Chat, Transcript, ["up", "k"];
    /// Scrolls this transcript a line down
    ScrollDown = "scroll-down", "scroll", Chat, Transcript, ["down", "j"];
    /// Goes to the beginning of this transcript
    ScrollTop = "scroll-top", "top", Chat, Transcript, ["home", "g"];
    /// Goes to the end of this transcript and follows it
    Follow = "follow", "follow", Chat, Transcript, ["end", "G"];

    /// Opens a session
    NewSession = "new-session", "new", Sessions, Always, ["ctrl-n"];
    /// Shows the next session
    NextSession = "next-session", "next", Sessions, Always, ["alt-j", "J", "ctrl-down"];
    /// Shows the session before
    PreviousSession = "previous-session", "previous", Sessions, Always, ["alt-k", "K", "ctrl-up"];
    /// Chooses the next session in the list
    SessionDown = "session-down", "next", Sessions, Sessions, ["down", "j"];
    /// Chooses the session before in the list
    SessionUp = "session-up", "previous", Sessions, Sessions, ["up", "k"];
    /// Goes to the chosen session's input
    SessionEnter = "session-enter", "talk", Sessions, Sessions, ["enter"];
    /// Gives this session another name
    RenameSession = "rename-session", "rename", Sessions, Always, ["ctrl-r", "r"];
    /// Closes this session; asks once when something was said in it
    CloseSession = "close-session", "close", Sessions, Always, ["alt-x", "x"];

    /// A load of sessions that come by and by; shows it while it runs, then stops it
    Workload = "load", "load", Sessions, Always, ["w", "alt-w"];

    /// Doubles N, the rows that a KCache query head reads
    NDouble = "n-double", "N×2", Knobs, Always, ["]", "alt-up"];
    /// Halves N
    NHalve = "n-halve", "N÷2", Knobs, Always, ["[", "alt-down"];
    /// Raises N by one
    NUp = "n-up", "N+1", Knobs, Always, ["}", "alt-right"];
    /// Lowers N by one
    NDown = "n-down", "N−1", Knobs, Always, ["{", "alt-left"];
    /// Cycles what stands for the rows not read: none, renorm, mean
    TailCycle = "tail-cycle", "tail", Knobs, Always, ["t", "alt-t"];
    /// One more dense layer: V on the device, every row read
    DenseUp = "dense-up", "dense+1", Knobs, Always, ["d", "alt-d"];
    /// One dense layer less
    DenseDown = "dense-down", "dense−1", Knobs, Always, ["D", "alt-D"];
    /// Switches between rows chosen per query head and per KV head
    SelectCycle = "select-cycle", "select", Knobs, Always, ["s", "alt-s"];
    /// Keeps the policy and the budgets as they are now in your configuration, for the next start
    KeepSettings = "keep-settings", "keep", Knobs, Always, ["ctrl-s", "S"];

    /// Lowers the device budget by an eighth, from none to what is held: of the focused transcript's lane, else of both
    BudgetDown = "budget-down", "budget−", Knobs, Always, ["b", "f7"];
    /// Raises the device budget by an eighth: of the focused transcript's lane, else of both
    BudgetUp = "budget-up", "budget+", Knobs, Always, ["B", "f8"];
    /// Takes the device budget away: from the focused transcript's lane, else from both
    BudgetNone = "budget-none", "no budget", Knobs, Always, ["u", "alt-u"];

    /// Freezes charts and figures while collecting goes on
    Freeze = "freeze", "freeze", Charts, Always, ["space", "f6", "alt-f"];
    /// Moves the cursor over all charts back in time
    CursorLeft = "cursor-left", "back", Charts, Charts, ["left", "h"];
    /// Moves the cursor over all charts forward in time
    CursorRight = "cursor-right", "forward", Charts, Charts, ["right", "l"];
    /// Moves the cursor back by a tenth of the window
    CursorFarLeft = "cursor-far-left", "back", Charts, Charts, ["shift-left", "H"];
    /// Moves the cursor forward by a tenth of the window
    CursorFarRight = "cursor-far-right", "forward", Charts, Charts, ["shift-right", "L"];
    /// Chooses the next chart
    ChartNext = "chart-next", "chart", Charts, Charts, ["down", "j"];
    /// Chooses the chart before
    ChartPrevious = "chart-previous", "chart", Charts, Charts, ["up", "k"];
    /// Shows a shorter time on the charts
    ZoomIn = "zoom-in", "zoom", Charts, Always, ["+", "=", "alt-="];
    /// Shows a longer time on the charts
    ZoomOut = "zoom-out", "zoom", Charts, Always, ["-", "alt--"];
    /// Back to the configured time
    ZoomReset = "zoom-reset", "reset", Charts, Always, ["0", "alt-0"];

    /// Chooses the token before, to see what it read
    TokenPrevious = "token-previous", "token", Charts, Attention, [",", "p"];
    /// Chooses the token after
    TokenNext = "token-next", "token", Charts, Attention, [".", "n"];
    /// Follows the last token again
    TokenLast = "token-last", "last", Charts, Attention, ["end", "G"];
    /// Chooses the layer before
    LayerPrevious = "layer-previous", "layer", Charts, Attention, ["up", "k"];
    /// Chooses the next layer
    LayerNext = "layer-next", "layer", Charts, Attention, ["down", "j"];
    /// Chooses the head before
    HeadPrevious = "head-previous", "head", Charts, Attention, ["left", "h"];
    /// Chooses the next head
    HeadNext = "head-next", "head", Charts, Attention, ["right", "l"];
    /// All heads of all layers together
    HeadsAll = "heads-all", "all heads", Charts, Attention, ["a", "esc"];

    /// Transcripts alone
    LayoutChat = "layout-chat", "chat", Screen, Always, ["1", "f2"];
    /// Charts alone
    LayoutCharts = "layout-charts", "charts", Screen, Always, ["2", "f3"];
    /// Transcripts and charts
    LayoutBoth = "layout-both", "both", Screen, Always, ["3", "f4"];
    /// The figures in large, each with where it comes from
    LayoutFigures = "layout-figures", "figures", Screen, Always, ["4", "f5"];
    /// Where the rows lie: what a token read, by head, and what other N would keep
    LayoutAttention = "layout-hits", "attention", Screen, Always, ["5", "alt-5"];
    /// Gives the focused pane the whole screen, and back
    Expand = "expand", "full pane", Screen, Always, ["z", "alt-z"];
    /// Goes to the next pane
    FocusNext = "focus-next", "pane", Screen, Always, ["tab"];
    /// Goes to the pane before
    FocusPrevious = "focus-previous", "pane", Screen, Always, ["backtab"];
    /// The next theme
    ThemeCycle = "theme-cycle", "theme", Screen, Always, ["f9", "T"];
    /// Writes the screen as an SVG file
    Dump = "dump", "picture", Screen, Always, ["f12", "P", "alt-p"];
    /// Every key, searchable; enter does what is chosen
    Help = "help", "help", Screen, Always, ["?", "f1", "alt-h"];
    /// Stops the answers of this session, or asks while others are under way; once more, or with nothing under way, quits
    Interrupt = "interrupt", "stop, quit", Screen, Always, ["ctrl-c"];
    /// Suspends the program, as a shell's job; fg brings it back
    Suspend = "suspend", "suspend", Screen, Always, ["ctrl-z"];
    /// Quits
    Quit = "quit", "quit", Screen, Always, ["q", "ctrl-q"];
}

/// A name that is no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an action; `?` in the dashboard lists them")]
pub struct UnknownAction(pub String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|action| action.name() == name).ok_or_else(|| UnknownAction(name.to_owned()))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        let names: BTreeSet<_> = Action::ALL.iter().map(|action| action.name()).collect();
        assert_eq!(names.len(), Action::ALL.len());
        for &action in Action::ALL {
            assert_eq!(action.name().parse(), Ok(action));
            assert!(!action.default_keys().is_empty(), "{action} cannot be reached");
        }
        assert!("fly".parse::<Action>().is_err());
    }
}
