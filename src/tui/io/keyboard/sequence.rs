//! One key, one mouse event or the beginning of a paste from the bytes that a terminal sends for it.
//!
//! What xterm and its descendants, the Linux console and rxvt send, and the two ways in which a terminal that is asked
//! to can name every key with its modifiers.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

const ESCAPE: u8 = 0x1b;
/// No sequence is as long as this: what goes on longer is none.
const LONGEST: usize = 64;

/// What the first bytes mean, and how many of them they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Found {
    Key(KeyEvent, usize),
    Mouse(MouseEvent, usize),
    Paste(usize),
    /// Nothing that means anything here.
    Nothing(usize),
    /// The rest of it has not come yet.
    More,
}

/// What `bytes` begin with; they are not empty.
pub fn first(bytes: &[u8]) -> Found {
    match bytes[0] {
        ESCAPE => escape(bytes),
        b'\r' => key(KeyCode::Enter, KeyModifiers::NONE, 1),
        b'\t' => key(KeyCode::Tab, KeyModifiers::NONE, 1),
        0x7f => key(KeyCode::Backspace, KeyModifiers::NONE, 1),
        0 => key(KeyCode::Char(' '), KeyModifiers::CONTROL, 1),
        byte @ 0x01..=0x1a => key(KeyCode::Char(char::from(byte - 1 + b'a')), KeyModifiers::CONTROL, 1),
        byte @ 0x1c..=0x1f => key(KeyCode::Char(char::from(byte - 0x1c + b'4')), KeyModifiers::CONTROL, 1),
        _ => character(bytes),
    }
}

/// What an unfinished sequence means when nothing follows it: the escape key, or a character typed together with alt.
pub fn alone(bytes: &[u8]) -> Option<KeyEvent> {
    match bytes {
        [ESCAPE] => Some(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE)),
        &[ESCAPE, byte @ (b'[' | b'O')] => Some(typed(char::from(byte), KeyModifiers::ALT)),
        _ => None,
    }
}

fn key(code: KeyCode, modifiers: KeyModifiers, bytes: usize) -> Found {
    Found::Key(KeyEvent::new(code, modifiers), bytes)
}

/// A capital letter is typed with shift.
fn typed(c: char, modifiers: KeyModifiers) -> KeyEvent {
    let shift = if c.is_uppercase() { KeyModifiers::SHIFT } else { KeyModifiers::NONE };
    KeyEvent::new(KeyCode::Char(c), modifiers | shift)
}

fn character(bytes: &[u8]) -> Found {
    let length = match bytes[0] {
        0x00..=0x7f => 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Found::Nothing(1),
    };
    match std::str::from_utf8(&bytes[..length.min(bytes.len())]) {
        Ok(text) => text.chars().next().map_or(Found::Nothing(1), |c| Found::Key(typed(c, KeyModifiers::NONE), length)),
        // Without a length of its error the text is cut off, and right so far.
        Err(error) if error.error_len().is_none() && bytes.len() < length => Found::More,
        Err(_) => Found::Nothing(1),
    }
}

fn escape(bytes: &[u8]) -> Found {
    match bytes.get(1) {
        None => Found::More,
        Some(b'[') => control_sequence(bytes),
        Some(b'O') => match bytes.get(2) {
            None => Found::More,
            Some(&last) => cursor_key(last).map_or(Found::Nothing(3), |code| key(code, KeyModifiers::NONE, 3)),
        },
        // Two in a row: the key, and then the beginning of something.
        Some(&ESCAPE) => key(KeyCode::Esc, KeyModifiers::NONE, 1),
        Some(_) => match first(&bytes[1..]) {
            Found::Key(key, used) => {
                Found::Key(KeyEvent { modifiers: key.modifiers | KeyModifiers::ALT, ..key }, used + 1)
            }
            Found::Nothing(used) => Found::Nothing(used + 1),
            other => other,
        },
    }
}

/// `ESC [`, parameters, and a letter that says what they are of.
fn control_sequence(bytes: &[u8]) -> Found {
    let rest = &bytes[2..];
    // The Linux console's first five function keys.
    if rest.first() == Some(&b'[') {
        return match rest.get(1) {
            None => Found::More,
            Some(&last @ b'A'..=b'E') => key(KeyCode::F(last - b'A' + 1), KeyModifiers::NONE, 4),
            Some(_) => Found::Nothing(3),
        };
    }
    let Some(end) = rest.iter().position(|byte| !matches!(byte, 0x20..=0x3f)) else {
        return if bytes.len() < LONGEST { Found::More } else { Found::Nothing(bytes.len()) };
    };
    let (last, used) = (rest[end], end + 3);
    // Not a letter: the sequence was broken off, and something else begins.
    if !matches!(last, 0x40..=0x7e) {
        return Found::Nothing(end + 2);
    }
    let parameters = std::str::from_utf8(&rest[..end]).unwrap_or_default();
    let numbers = || parameters.split(';').map(|number| number.split(':').next()?.parse::<u32>().ok());
    let number = |at: usize| numbers().nth(at).flatten();
    match last {
        b'M' | b'm' if parameters.starts_with('<') => sgr_mouse(&parameters[1..], last == b'm', used),
        b'M' if parameters.is_empty() => match rest.get(1..4) {
            None => Found::More,
            Some(&[button, column, row]) => mouse(
                u32::from(button).wrapping_sub(32),
                (column, row),
                |at: u8| u32::from(at).saturating_sub(32),
                used + 3,
            ),
            Some(_) => Found::Nothing(used),
        },
        b'M' => match (number(0), number(1), number(2)) {
            (Some(button), Some(column), Some(row)) => mouse(button.wrapping_sub(32), (column, row), |at| at, used),
            _ => Found::Nothing(used),
        },
        b'Z' => key(KeyCode::BackTab, KeyModifiers::SHIFT, used),
        b'~' => match number(0) {
            Some(200) => Found::Paste(used),
            Some(27) => named(number(2), modifiers(parameters), kind(parameters), used),
            number => number
                .and_then(numbered_key)
                .map_or(Found::Nothing(used), |code| pressed(code, modifiers(parameters), kind(parameters), used)),
        },
        b'u' => named(number(0), modifiers(parameters), kind(parameters), used),
        // A report of the cursor's place ends in the same letter as a third function key with modifiers.
        b'R' => Found::Nothing(used),
        last => cursor_key(last)
            .map_or(Found::Nothing(used), |code| pressed(code, modifiers(parameters), kind(parameters), used)),
    }
}

fn pressed(code: KeyCode, modifiers: KeyModifiers, kind: KeyEventKind, used: usize) -> Found {
    Found::Key(KeyEvent::new_with_kind(code, modifiers, kind), used)
}

/// A key by its code point.
fn named(code: Option<u32>, modifiers: KeyModifiers, kind: KeyEventKind, used: usize) -> Found {
    let code = match code {
        Some(9) if modifiers.contains(KeyModifiers::SHIFT) => KeyCode::BackTab,
        Some(9) => KeyCode::Tab,
        Some(13) => KeyCode::Enter,
        Some(27) => KeyCode::Esc,
        Some(8 | 127) => KeyCode::Backspace,
        Some(code) => match char::from_u32(code).filter(|c| !c.is_control()) {
            // Where terminals name keys that have no character.
            None | Some('\u{e000}'..='\u{f8ff}') => return Found::Nothing(used),
            Some(c) => KeyCode::Char(c),
        },
        None => return Found::Nothing(used),
    };
    pressed(code, modifiers, kind, used)
}

/// The second parameter less one is a set of bits.
fn modifiers(parameters: &str) -> KeyModifiers {
    let field = parameters.split(';').nth(1).and_then(|field| field.split(':').next()?.parse::<u32>().ok());
    let bits = field.unwrap_or(1).saturating_sub(1);
    let held = [(1, KeyModifiers::SHIFT), (2, KeyModifiers::ALT), (4, KeyModifiers::CONTROL)];
    held.into_iter().filter(|(bit, _)| bits & bit != 0).fold(KeyModifiers::NONE, |all, (_, one)| all | one)
}

/// Behind a colon stands whether the key was let go.
fn kind(parameters: &str) -> KeyEventKind {
    match parameters.split(';').nth(1).and_then(|field| field.split(':').nth(1)) {
        Some("2") => KeyEventKind::Repeat,
        Some("3") => KeyEventKind::Release,
        _ => KeyEventKind::Press,
    }
}

fn cursor_key(last: u8) -> Option<KeyCode> {
    Some(match last {
        b'A' => KeyCode::Up,
        b'B' => KeyCode::Down,
        b'C' => KeyCode::Right,
        b'D' => KeyCode::Left,
        b'F' => KeyCode::End,
        b'H' => KeyCode::Home,
        // The keypad's.
        b'M' => KeyCode::Enter,
        b'P'..=b'S' => KeyCode::F(last - b'P' + 1),
        _ => return None,
    })
}

fn numbered_key(number: u32) -> Option<KeyCode> {
    Some(match number {
        1 | 7 => KeyCode::Home,
        2 => KeyCode::Insert,
        3 => KeyCode::Delete,
        4 | 8 => KeyCode::End,
        5 => KeyCode::PageUp,
        6 => KeyCode::PageDown,
        11..=15 => KeyCode::F(number as u8 - 10),
        17..=21 => KeyCode::F(number as u8 - 11),
        23..=24 => KeyCode::F(number as u8 - 12),
        _ => return None,
    })
}

fn sgr_mouse(parameters: &str, released: bool, used: usize) -> Found {
    let mut numbers = parameters.split(';').map(|number| number.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    match (next(), next(), next()) {
        (Some(button), Some(column), Some(row)) => match mouse(button, (column, row), |at| at, used) {
            Found::Mouse(MouseEvent { kind: MouseEventKind::Down(button), .. }, used) if released => {
                let event = mouse_event(MouseEventKind::Up(button), column, row, KeyModifiers::NONE);
                Found::Mouse(event, used)
            }
            other => other,
        },
        _ => Found::Nothing(used),
    }
}

fn mouse<T>(button: u32, (column, row): (T, T), number: impl Fn(T) -> u32, used: usize) -> Found {
    let dragged = button & 32 != 0;
    let kind = match ((button & 3) | ((button & 192) >> 4), dragged) {
        (0, false) => MouseEventKind::Down(MouseButton::Left),
        (1, false) => MouseEventKind::Down(MouseButton::Middle),
        (2, false) => MouseEventKind::Down(MouseButton::Right),
        (3, false) => MouseEventKind::Up(MouseButton::Left),
        (0, true) => MouseEventKind::Drag(MouseButton::Left),
        (1, true) => MouseEventKind::Drag(MouseButton::Middle),
        (2, true) => MouseEventKind::Drag(MouseButton::Right),
        (3, true) => MouseEventKind::Moved,
        (4, false) => MouseEventKind::ScrollUp,
        (5, false) => MouseEventKind::ScrollDown,
        _ => return Found::Nothing(used),
    };
    let held = [(4, KeyModifiers::SHIFT), (8, KeyModifiers::ALT), (16, KeyModifiers::CONTROL)];
    let modifiers =
        held.into_iter().filter(|(bit, _)| button & bit != 0).fold(KeyModifiers::NONE, |all, (_, one)| all | one);
    Found::Mouse(mouse_event(kind, number(column), number(row), modifiers), used)
}

fn mouse_event(kind: MouseEventKind, column: u32, row: u32, modifiers: KeyModifiers) -> MouseEvent {
    let from_zero = |at: u32| u16::try_from(at.saturating_sub(1)).unwrap_or(u16::MAX);
    MouseEvent { kind, column: from_zero(column), row: from_zero(row), modifiers }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: KeyModifiers = KeyModifiers::NONE;
    const SHIFT: KeyModifiers = KeyModifiers::SHIFT;
    const ALT: KeyModifiers = KeyModifiers::ALT;
    const CONTROL: KeyModifiers = KeyModifiers::CONTROL;

    #[test]
    fn keys_are_read_as_terminals_send_them() {
        for (sent, code, modifiers) in [
            ("a", KeyCode::Char('a'), NONE),
            ("A", KeyCode::Char('A'), SHIFT),
            ("é", KeyCode::Char('é'), NONE),
            ("你", KeyCode::Char('你'), NONE),
            ("🙂", KeyCode::Char('🙂'), NONE),
            ("\r", KeyCode::Enter, NONE),
            ("\n", KeyCode::Char('j'), CONTROL),
            ("\t", KeyCode::Tab, NONE),
            ("\x7f", KeyCode::Backspace, NONE),
            ("\x08", KeyCode::Char('h'), CONTROL),
            ("\x03", KeyCode::Char('c'), CONTROL),
            ("\x1f", KeyCode::Char('7'), CONTROL),
            ("\0", KeyCode::Char(' '), CONTROL),
            ("\x1bx", KeyCode::Char('x'), ALT),
            ("\x1bX", KeyCode::Char('X'), ALT | SHIFT),
            ("\x1bé", KeyCode::Char('é'), ALT),
            ("\x1b\r", KeyCode::Enter, ALT),
            ("\x1b\x18", KeyCode::Char('x'), ALT | CONTROL),
            ("\x1b[A", KeyCode::Up, NONE),
            ("\x1bOA", KeyCode::Up, NONE),
            ("\x1b[1;3A", KeyCode::Up, ALT),
            ("\x1b[1;5B", KeyCode::Down, CONTROL),
            ("\x1b[1;2D", KeyCode::Left, SHIFT),
            ("\x1b[H", KeyCode::Home, NONE),
            ("\x1b[4~", KeyCode::End, NONE),
            ("\x1b[5~", KeyCode::PageUp, NONE),
            ("\x1b[6;5~", KeyCode::PageDown, CONTROL),
            ("\x1b[3~", KeyCode::Delete, NONE),
            ("\x1b[Z", KeyCode::BackTab, SHIFT),
            ("\x1bOP", KeyCode::F(1), NONE),
            ("\x1b[11~", KeyCode::F(1), NONE),
            ("\x1b[[A", KeyCode::F(1), NONE),
            ("\x1b[15~", KeyCode::F(5), NONE),
            ("\x1b[17~", KeyCode::F(6), NONE),
            ("\x1b[21~", KeyCode::F(10), NONE),
            ("\x1b[24~", KeyCode::F(12), NONE),
            ("\x1bOM", KeyCode::Enter, NONE),
            ("\x1b[13;2u", KeyCode::Enter, SHIFT),
            ("\x1b[27;2;13~", KeyCode::Enter, SHIFT),
            ("\x1b[97;5u", KeyCode::Char('a'), CONTROL),
            ("\x1b[9;2u", KeyCode::BackTab, SHIFT),
        ] {
            let wanted = Found::Key(KeyEvent::new(code, modifiers), sent.len());
            assert_eq!(first(sent.as_bytes()), wanted, "{sent:?}");
            // Byte by byte it waits for the rest.
            for length in 1..sent.len() {
                let begun = first(&sent.as_bytes()[..length]);
                assert_eq!(begun, Found::More, "{:?}", &sent.as_bytes()[..length]);
            }
        }
        let released = KeyEvent::new_with_kind(KeyCode::Char('a'), NONE, KeyEventKind::Release);
        assert_eq!(first(b"\x1b[97;1:3u"), Found::Key(released, 9));
    }

    #[test]
    fn the_mouse_is_read_in_each_of_its_three_ways() {
        let event = |kind, column, row| MouseEvent { kind, column, row, modifiers: NONE };
        let left = MouseButton::Left;
        for (sent, wanted) in [
            (&b"\x1b[<0;10;20M"[..], event(MouseEventKind::Down(left), 9, 19)),
            (b"\x1b[<0;10;20m", event(MouseEventKind::Up(left), 9, 19)),
            (b"\x1b[<32;1;1M", event(MouseEventKind::Drag(left), 0, 0)),
            (b"\x1b[<35;1;1M", event(MouseEventKind::Moved, 0, 0)),
            (b"\x1b[<64;300;2M", event(MouseEventKind::ScrollUp, 299, 1)),
            (b"\x1b[<65;1;2M", event(MouseEventKind::ScrollDown, 0, 1)),
            (b"\x1b[32;10;20M", event(MouseEventKind::Down(left), 9, 19)),
            (b"\x1b[M *4", event(MouseEventKind::Down(left), 9, 19)),
        ] {
            assert_eq!(first(sent), Found::Mouse(wanted, sent.len()), "{sent:?}");
        }
    }

    #[test]
    fn what_means_nothing_is_passed_over_and_takes_nothing_along() {
        for (sent, used) in [
            (&b"\x1b[201~x"[..], 6),
            (b"\x1b[3;4Rx", 6),
            (b"\x1b[99~x", 5),
            (b"\x1b[<1;2Mx", 7),
            (b"\x1b[?1;2cx", 7),
            (b"\x1bOzx", 3),
            (b"\x1b[57358ux", 8),
            (b"\x1b[1;\x03", 4),
            (b"\xffx", 1),
            (b"\xc3(", 1),
        ] {
            assert_eq!(first(sent), Found::Nothing(used), "{sent:?}");
        }
        let endless = [b"\x1b[".as_slice(), &[b'1'; 200]].concat();
        assert_eq!(first(&endless), Found::Nothing(202));
        assert_eq!(first(b"\x1b[200~"), Found::Paste(6));
        // The key, and what follows it by itself.
        assert_eq!(first(b"\x1b\x1b[A"), key(KeyCode::Esc, NONE, 1));
    }

    #[test]
    fn an_escape_that_nothing_follows_is_the_key() {
        assert_eq!(alone(b"\x1b"), Some(KeyEvent::new(KeyCode::Esc, NONE)));
        assert_eq!(alone(b"\x1b["), Some(KeyEvent::new(KeyCode::Char('['), ALT)));
        assert_eq!(alone(b"\x1bO"), Some(KeyEvent::new(KeyCode::Char('O'), ALT | SHIFT)));
        assert_eq!(alone(b"\x1b[1;"), None);
    }
}
