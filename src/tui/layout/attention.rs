//! Where the panes of the attention view lie, and the lines of its text.

use ratatui::{
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::Line,
};

use crate::tui::{
    layout,
    state::State,
    theme::{Heat, Theme, ink},
    widgets::wrap::{Piece, wrap},
};

/// Where the panes of the attention view lie; an empty rectangle is not shown.
pub struct Panes {
    pub text: Rect,
    pub heat: Rect,
    pub heads: Rect,
    pub curve: Rect,
}

pub fn panes(state: &State, area: Rect) -> Panes {
    let none = Rect::default();
    if area.width < 60 {
        let [text, curve] = Layout::vertical([Constraint::Fill(3), Constraint::Fill(2)]).areas(area);
        return if area.height >= 12 {
            Panes { text, heat: none, heads: none, curve }
        } else {
            Panes { text: area, heat: none, heads: none, curve: none }
        };
    }
    let side = (area.width * 2 / 5).clamp(30, 80);
    let [text, side] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(side)]).areas(area);
    match side.height {
        30.. => {
            let [heat, heads, curve] = Layout::vertical([Constraint::Fill(1); 3]).areas(side);
            Panes { text, heat, heads, curve }
        }
        14.. => {
            let [upper, curve] = Layout::vertical([Constraint::Fill(1); 2]).areas(side);
            // Few rows: what was chosen decides.
            let (heat, heads) = if state.attention.head.is_some() { (none, upper) } else { (upper, none) };
            Panes { text, heat, heads, curve }
        }
        _ => Panes { text, heat: none, heads: none, curve: side },
    }
}

/// First line on show, rows, and lines in all of the text.
pub fn extent(state: &State) -> (usize, usize, usize) {
    let body = body(panes(state, layout::of(state).attention).text);
    let (lines, now) = lines(state, &Theme::mono(), usize::from(body.width).max(1));
    let rows = usize::from(body.height);
    (top(state, now, rows, lines.len()), rows, lines.len())
}

/// The lines of the text, the first line on show, and the one with the chosen token.
pub fn lines(state: &State, theme: &Theme, width: usize) -> (Vec<Line<'static>>, usize) {
    let view = &state.attention;
    let read = view.chosen();
    let mut heads = vec![0u16; view.texts.len()];
    for &(position, count) in read.iter().flat_map(|read| &read.positions) {
        if let Some(head) = heads.get_mut(position as usize) {
            *head = count;
        }
    }
    let of = read.map_or(0, |read| read.heads);
    let now = read.map_or(usize::MAX, |read| read.len);
    let style = |position: usize| match position.cmp(&now) {
        std::cmp::Ordering::Less => heated(theme, f64::from(heads[position]) / of.max(1) as f64),
        std::cmp::Ordering::Equal => theme.cursor,
        std::cmp::Ordering::Greater => theme.dim,
    };
    let piece = |(position, text): (usize, &'_ String)| (position, text.clone());
    let texts: Vec<(usize, String)> = view.texts.iter().enumerate().map(piece).collect();
    let pieces: Vec<Piece<'_>> = texts.iter().map(|(at, text)| Piece { text, style: style(*at) }).collect();
    let upto = now.saturating_add(1).min(pieces.len());
    let before = wrap(&pieces[..upto], width).len();
    (wrap(&pieces, width), before)
}

/// How text looks that a share of the heads chose: by background, and where there is none by weight.
fn heated(theme: &Theme, share: f64) -> Style {
    let step = theme.heat.step(share.sqrt());
    match &theme.heat {
        Heat::Colours(_) if step == 0 => theme.text,
        Heat::Colours(colours) => Style::new().bg(colours[step]).fg(ink(colours[step])),
        Heat::Shades(_) => match step {
            0 => theme.dim,
            1 => theme.text,
            2 => theme.text.add_modifier(Modifier::UNDERLINED),
            3 => theme.text.add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            _ => theme.text.add_modifier(Modifier::BOLD | Modifier::REVERSED),
        },
    }
}

/// The part of the pane that is for text: the last row is the whole context in one line.
pub fn body(area: Rect) -> Rect {
    let inner = layout::inner(area);
    Rect { height: inner.height.saturating_sub(1), ..inner }
}

pub fn top(state: &State, now: usize, rows: usize, total: usize) -> usize {
    let last = total.saturating_sub(rows);
    state.attention.top.unwrap_or(now.saturating_sub(rows)).min(last)
}
