//! The lines of a transcript: what was said in one lane, with the place where the lanes part marked. Drawing and
//! scrolling take them from here, so that they agree on how many there are.

use ratatui::{
    layout::Rect,
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::waiting::waits_for;
use crate::{
    engine::{FinishReason, Lane},
    quality::GuardState,
    tui::{
        layout,
        state::{
            State,
            comparison::Comparison,
            session::{Phase, Session},
            transcript::{Answer, Together, Turn},
        },
        theme::Theme,
        widgets::{
            Unit,
            units::{duration, nats, thousands},
            width,
            wrap::{Piece, wrap, wrap_text},
        },
    },
};

/// Lines of a transcript in all, and rows to show them.
pub fn extent(state: &State, lane: Lane) -> (usize, usize) {
    let inner = layout::transcript(state, lane);
    let Some(session) = state.session() else { return (0, 0) };
    let lines = lines(session, lane, &waits_for(state, session, lane), usize::from(inner.width), &Styles::default());
    (lines.len(), usize::from(body(session, lane, inner).height))
}

/// The turn in the middle of a transcript that was scrolled; `None` where its end is followed.
pub fn turn_on_show(state: &State, lane: Lane) -> Option<usize> {
    let session = state.session()?;
    let top = session.top[lane as usize]?;
    let inner = layout::transcript(state, lane);
    let (width, height) = (usize::from(inner.width), usize::from(body(session, lane, inner).height));
    let (waits, styles) = (waits_for(state, session, lane), Styles::default());
    let mut lines = head(session, width, &styles);
    (0..session.turns.len()).find(|&at| {
        turn(session, at, lane, &waits, width, &styles, &mut lines);
        lines.len() > top + height / 2
    })
}

/// The rows for text: a prefill keeps the last one for its progress.
pub fn body(session: &Session, lane: Lane, inner: Rect) -> Rect {
    let bar = u16::from(matches!(session.phase(lane), Phase::Prefill(_)) && inner.height >= 2);
    Rect { height: inner.height - bar, ..inner }
}

/// The styles of a transcript.
#[derive(Default)]
pub struct Styles {
    user: Style,
    text: Style,
    dim: Style,
    parted: Style,
    otherwise: Style,
    same: Style,
    warn: Style,
    bad: Style,
}

impl Styles {
    pub fn new(theme: &Theme) -> Self {
        Self {
            user: theme.title,
            text: theme.text,
            dim: theme.dim,
            // Reversed as well as coloured: the mark must be seen without colour.
            parted: theme.mark.add_modifier(Modifier::REVERSED | Modifier::BOLD),
            otherwise: theme.mark.add_modifier(Modifier::UNDERLINED),
            same: theme.good,
            warn: theme.warn,
            bad: theme.bad,
        }
    }
}

/// All lines of a transcript at a width; `waits` is what stands where the lane has not begun to answer.
pub fn lines(session: &Session, lane: Lane, waits: &str, width: usize, styles: &Styles) -> Vec<Line<'static>> {
    let mut lines = head(session, width, styles);
    for at in 0..session.turns.len() {
        turn(session, at, lane, waits, width, styles, &mut lines);
    }
    if let (Lane::KCache, Some((state, reason))) = (lane, &session.guard) {
        let what = match state {
            GuardState::Full => "goes on with full attention",
            GuardState::TopN | GuardState::Warned => "top-N is not to be trusted here",
        };
        lines.extend(wrap_text(&format!("! {what}: {reason}"), styles.warn, width));
    }
    lines
}

/// What stands above the first message: the session's system message.
pub fn head(session: &Session, width: usize, styles: &Styles) -> Vec<Line<'static>> {
    let Some(system) = &session.system else { return Vec::new() };
    let mut lines = wrap_text(&format!("system: {system}"), styles.dim, width);
    lines.push(Line::default());
    lines
}

/// The lines of one message and its answer, after those before it.
fn turn(
    session: &Session,
    at: usize,
    lane: Lane,
    waits: &str,
    width: usize,
    styles: &Styles,
    lines: &mut Vec<Line<'static>>,
) {
    let turn = &session.turns[at];
    if at > 0 {
        lines.push(Line::default());
    }
    question(turn, width, styles, lines);
    if session.lanes.contains(&lane) {
        answer(turn, lane, width, styles, lines);
        let busy = session.phase(lane).busy() && turn.open(lane) && at + 1 == session.turns.len();
        let preempted = matches!(session.phase(lane), Phase::Preempted { .. });
        if busy && preempted {
            lines.extend(wrap_text(waits, styles.warn, width));
        } else if busy && turn.answer(lane).tokens.is_empty() {
            let words = match (session.phase(lane), &turn.document) {
                (Phase::Waiting, _) => waits.to_owned(),
                (_, Some(document)) => format!("reads {document}"),
                (_, None) => "reads".to_owned(),
            };
            lines.extend(wrap_text(&words, styles.dim, width));
        }
    }
    match session.turns.get(at + 1) {
        _ if !turn.earlier => {}
        None => {
            let words = "↑ from an earlier run, computed again with the next message";
            lines.extend(wrap_text(words, styles.dim, width));
        }
        Some(next) if !next.earlier => lines.extend(wrap_text("↑ from an earlier run", styles.dim, width)),
        Some(_) => {}
    }
}

fn question(turn: &Turn, width: usize, styles: &Styles, lines: &mut Vec<Line<'static>>) {
    if let Some(document) = &turn.document {
        let size = turn.prompt_tokens.map_or(String::new(), |tokens| format!(" · {} tokens", thousands(tokens)));
        let folded = width::clip(&format!("▸ {document}{size}"), width);
        lines.push(Line::styled(folded, styles.dim));
    }
    let wrapped = wrap_text(&turn.text, styles.user, width.saturating_sub(2));
    for (at, line) in wrapped.into_iter().enumerate() {
        let mark = if at == 0 { "❯ " } else { "  " };
        let mut spans = vec![Span::styled(mark, styles.user)];
        spans.extend(line.spans);
        lines.push(Line::from(spans));
    }
}

fn answer(turn: &Turn, lane: Lane, width: usize, styles: &Styles, lines: &mut Vec<Line<'static>>) {
    let answer = turn.answer(lane);
    if !answer.text.is_empty() {
        let text = answer.text.trim_end_matches('\n');
        lines.extend(wrap(&marked(turn, lane, text, styles), width));
    }
    if let (Lane::KCache, Some(comparison)) = (lane, &turn.comparison) {
        for words in compared(comparison, answer) {
            lines.extend(wrap_text(&words, styles.dim, width));
        }
        if let Some((at, reason)) = &comparison.unlocked {
            let words = format!("! apart from token {} on: {reason}", at.saturating_add(1));
            lines.extend(wrap_text(&words, styles.warn, width));
        }
    }
    if let Some(error) = &turn.errors[lane as usize] {
        lines.extend(wrap_text(error, styles.bad, width));
        // It was refused: that is all there is to say.
        if answer.tokens.is_empty() {
            return;
        }
    }
    if let Some((reason, usage)) = &answer.end {
        let mut words = vec![format!("{} tokens", usage.completion_tokens)];
        if *reason != FinishReason::Stop {
            words.insert(0, if *reason == FinishReason::Length { "cut off".into() } else { reason.to_string() });
        }
        if let Some(ttft) = usage.ttft_ms {
            words.push(format!("first after {}", duration(Some(ttft / 1000.0))));
        }
        if let Some(kept) = answer.kept_mass() {
            words.push(format!("kept {}", Unit::Percent.text(Some(kept))));
        }
        if let Some(kl) = answer.kl() {
            words.push(format!("KL {kl:.3}"));
        }
        let style = match reason {
            FinishReason::Context | FinishReason::Budget | FinishReason::Failed => styles.bad,
            _ => styles.dim,
        };
        let mut line = wrap_text(&words.join(" · "), style, width);
        if turn.answer(lane.other()).end.is_some() {
            let compared = turn.comparison.as_ref().filter(|comparison| !comparison.kl.is_empty());
            let said = match (turn.together, compared) {
                (Together { parted: Some(at), .. }, _) => Some((format!("parted at token {}", at + 1), styles.dim)),
                (_, Some(comparison)) if comparison.otherwise.is_empty() => {
                    Some(("KCache would have said the same".to_owned(), styles.same))
                }
                // Its own lines have it.
                (_, Some(_)) | (Together { both: 0, .. }, None) => None,
                (_, None) => Some(("every token the same in both".to_owned(), styles.same)),
            };
            line.extend(said.into_iter().flat_map(|(words, style)| wrap_text(&words, style, width)));
        }
        lines.extend(line);
    }
}

/// The answer in pieces: the token at which the lanes part or would have parted, and in the KCache lane of a compared answer every token in
/// whose place it would have said another.
fn marked<'a>(turn: &Turn, lane: Lane, text: &'a str, styles: &Styles) -> Vec<Piece<'a>> {
    let others = turn.comparison.iter().flat_map(|comparison| &comparison.otherwise).map(|other| other.index);
    // The first is marked in both lanes.
    let mut marks: Vec<(usize, Style)> = others.clone().take(1).map(|index| (index, styles.parted)).collect();
    if lane == Lane::KCache {
        marks.extend(others.skip(1).map(|index| (index, styles.otherwise)));
    }
    // The lanes go their own ways only after what they were given.
    marks.extend(turn.together.parted.map(|index| (index, styles.parted)));
    let mut pieces = Vec::with_capacity(2 * marks.len() + 1);
    let mut done = 0;
    for (index, style) in marks {
        let Some(range) = turn.answer(lane).token_range(index).filter(|range| range.end <= text.len()) else {
            continue;
        };
        // The blank before a word belongs to its token, but marked it would be a block of colour at a line's end.
        let token = &text[range.clone()];
        let blank = token.len() - token.trim_start().len();
        let start = if blank < token.len() { range.start + blank } else { range.start };
        pieces.push(Piece { text: &text[done..start], style: styles.text });
        pieces.push(Piece { text: &text[start..range.end], style });
        done = range.end;
    }
    pieces.push(Piece { text: &text[done..], style: styles.text });
    pieces
}

/// What a comparison has found so far, in words: where KCache would first have said something else, and the KL.
fn compared(comparison: &Comparison, answer: &Answer) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(other) = comparison.otherwise.first() {
        let quoted = |text: &str| match (text, text.trim()) {
            ("", _) => "the end".to_owned(),
            (blank, "") => format!("{blank:?}"),
            (_, word) => format!("{word:?}"),
        };
        let said = answer.token_range(other.index).and_then(|range| answer.text.get(range)).unwrap_or_default();
        let count = comparison.otherwise.len();
        let all = if count > 1 { format!(", {count} in all") } else { String::new() };
        let (own, said) = (quoted(&other.text), quoted(said));
        words.push(format!("≠ first at {}: {own} instead of {said}{all}", other.index.saturating_add(1)));
    }
    if let (Some((mean, p99)), Some(share)) = (comparison.kl_figures(), comparison.share()) {
        words.push(format!("KL mean {}, p99 {} · {:.1} % agree", nats(mean), nats(p99), share * 100.0));
    }
    words
}
