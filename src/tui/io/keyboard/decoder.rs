//! From the bytes that arrive to what was done: keys one by one, pasted text as one piece.
//!
//! A paste that the terminal marks begins with `ESC [ 200 ~` and ends with `ESC [ 201 ~`. Where the end does not come,
//! the paste ends after a while, or at ctrl-c. Several lines that arrive at once without such marks are pasted too: a
//! terminal that knows no marks sends them as if they were typed, and each line would be a message of its own. One line
//! with its line break is what somebody typed quickly, or a script sends: it stays what it was.

use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::sequence::{Found, alone, first};

/// How long the rest of a key's sequence is waited for; a lone escape is the escape key after it.
const KEY_WITHIN: Duration = Duration::from_millis(50);
/// How long a paste may pause. A slow line may stutter; a keyboard must not be locked.
const PASTE_WITHIN: Duration = Duration::from_secs(1);
/// The end of pasted text.
const PASTE_END: &[u8] = b"\x1b[201~";
const CTRL_C: u8 = 0x03;

/// Bytes that are not yet a whole.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a sequence, in a paste perhaps of its end.
    pending: Vec<u8>,
    /// What was pasted so far, while the end is awaited.
    paste: Option<Vec<u8>>,
}

impl Decoder {
    /// Takes in what arrived at once.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Event> {
        // Amid pasted text it is text; alone it is somebody who wants to get out.
        if self.paste.is_some() && bytes == [CTRL_C] {
            let mut events = self.give_up();
            events.push(Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
            return events;
        }
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        let mut events = Vec::new();
        loop {
            if let Some(paste) = &mut self.paste {
                let end = rest.windows(PASTE_END.len()).position(|window| window == PASTE_END);
                // Without an end, what may be its beginning waits.
                let text = end.unwrap_or(rest.len() - begun(rest));
                paste.extend_from_slice(&rest[..text]);
                rest = &rest[text..];
                if end.is_none() {
                    break;
                }
                rest = &rest[PASTE_END.len()..];
                events.extend(self.pasted());
            }
            if rest.is_empty() {
                break;
            }
            let used = match first(rest) {
                Found::Key(key, used) => {
                    events.push(Event::Key(key));
                    used
                }
                Found::Mouse(mouse, used) => {
                    events.push(Event::Mouse(mouse));
                    used
                }
                Found::Paste(used) => {
                    self.paste = Some(Vec::new());
                    used
                }
                Found::Nothing(used) => used,
                Found::More => break,
            };
            rest = &rest[used..];
        }
        self.pending = rest.to_vec();
        join_lines(events)
    }

    /// How long to wait for what is missing; `None` where nothing is.
    pub fn patience(&self) -> Option<Duration> {
        match &self.paste {
            Some(_) => Some(PASTE_WITHIN),
            None => (!self.pending.is_empty()).then_some(KEY_WITHIN),
        }
    }

    /// What is missing did not come: what there is has to do.
    pub fn give_up(&mut self) -> Vec<Event> {
        let pending = std::mem::take(&mut self.pending);
        match &mut self.paste {
            Some(paste) => {
                paste.extend(pending);
                self.pasted().into_iter().collect()
            }
            None => alone(&pending).map(Event::Key).into_iter().collect(),
        }
    }

    fn pasted(&mut self) -> Option<Event> {
        let text = self.paste.take().filter(|text| !text.is_empty())?;
        Some(Event::Paste(String::from_utf8_lossy(&text).into_owned()))
    }
}

/// How many of the last bytes the end of a paste may begin with.
fn begun(bytes: &[u8]) -> usize {
    let longest = bytes.len().min(PASTE_END.len() - 1);
    (1..=longest).rev().find(|&length| bytes.ends_with(&PASTE_END[..length])).unwrap_or(0)
}

/// Makes one paste of typed characters with a line break among them that more of them follow.
fn join_lines(events: Vec<Event>) -> Vec<Event> {
    let mut joined = Vec::with_capacity(events.len());
    let mut run = String::new();
    let mut keys = Vec::new();
    for event in events {
        match character(&event) {
            Some(c) => {
                run.push(c);
                keys.push(event);
            }
            None => {
                flush(&mut run, &mut keys, &mut joined);
                joined.push(event);
            }
        }
    }
    flush(&mut run, &mut keys, &mut joined);
    joined
}

fn flush(run: &mut String, keys: &mut Vec<Event>, to: &mut Vec<Event>) {
    // Several line breaks and nothing else are a key held down.
    let text = run.trim_matches('\n');
    let lines = run.trim_end_matches('\n').contains('\n') && !text.is_empty();
    if lines {
        to.push(Event::Paste(std::mem::take(run)));
        keys.clear();
    } else {
        run.clear();
        to.append(keys);
    }
}

/// The character that a key types.
fn character(event: &Event) -> Option<char> {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return None };
    match code {
        KeyCode::Char('j') if *modifiers == KeyModifiers::CONTROL => Some('\n'),
        KeyCode::Char(c) if (*modifiers - KeyModifiers::SHIFT).is_empty() => Some(*c),
        KeyCode::Enter if modifiers.is_empty() => Some('\n'),
        KeyCode::Tab if modifiers.is_empty() => Some('\t'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// What was done, as a text that is easy to compare: keys as they are, pastes in angle brackets.
    fn told(events: Vec<Event>) -> String {
        let tell = |event| match event {
            Event::Paste(text) => format!("<{text}>"),
            Event::Key(KeyEvent { code: KeyCode::Enter, .. }) => "⏎".into(),
            Event::Key(KeyEvent { code: KeyCode::Esc, .. }) => "␛".into(),
            Event::Key(KeyEvent { code: KeyCode::Char(c), modifiers: KeyModifiers::CONTROL, .. }) => format!("^{c}"),
            Event::Key(KeyEvent { code: KeyCode::Char(c), .. }) => c.to_string(),
            other => format!("{other:?}"),
        };
        events.into_iter().map(tell).collect()
    }

    #[test]
    fn a_paste_is_one_piece_however_it_arrives() {
        let sent = "a\x1b[200~one\rtwo \x1b[31m é\x03\r\x1b[201~b".as_bytes();
        let wanted = "a<one\rtwo \x1b[31m é\x03\r>b";
        for size in 1..sent.len() {
            let mut decoder = Decoder::default();
            let events = sent.chunks(size).flat_map(|chunk| match chunk {
                // Alone it would be somebody at the keyboard.
                [CTRL_C] => decoder.take(b"\x02"),
                chunk => decoder.take(chunk),
            });
            let events = told(events.collect()).replace('\x02', "\x03");
            assert_eq!(events, wanted, "{size}");
            assert_eq!(decoder.patience(), None);
        }
    }

    #[test]
    fn a_paste_without_an_end_ends_after_a_while_or_at_ctrl_c() {
        let mut decoder = Decoder::default();
        assert_eq!(told(decoder.take(b"\x1b[200~half of")), "");
        assert_eq!(told(decoder.take(b" it\x1b[20")), "");
        assert_eq!(decoder.patience(), Some(PASTE_WITHIN));
        assert_eq!(told(decoder.give_up()), "<half of it\x1b[20>");
        assert_eq!((told(decoder.take(b"k")).as_str(), decoder.patience()), ("k", None));
        // Its end, when it comes after all, is nothing.
        assert_eq!(told(decoder.take(b"\x1b[201~x")), "x");

        assert_eq!(told(decoder.take(b"\x1b[200~text")), "");
        assert_eq!(told(decoder.take(b"\x03")), "<text>^c");
        assert_eq!(told(decoder.take(b"q")), "q");
    }

    #[test]
    fn lines_that_arrive_at_once_are_one_paste_and_a_typed_line_is_sent() {
        for (sent, wanted) in [
            ("one\rtwo\rthree\r", "<one\ntwo\nthree\n>"),
            ("one\ntwo", "<one\ntwo>"),
            ("\ttabbed\rlines", "<\ttabbed\nlines>"),
            ("quickly typed\r", "quickly typed⏎"),
            ("\r", "⏎"),
            ("\r\r\r", "⏎⏎⏎"),
            ("\x1b[A\x1b[Aa\r", "Key(KeyEvent"),
        ] {
            let events = told(Decoder::default().take(sent.as_bytes()));
            assert!(events == wanted || (wanted.starts_with("Key") && events.ends_with("a⏎")), "{sent:?}: {events}");
        }
        // Keys that come one by one stay keys.
        let mut decoder = Decoder::default();
        let events = "a\rb\r".chars().flat_map(|c| decoder.take(c.to_string().as_bytes())).collect();
        assert_eq!(told(events), "a⏎b⏎");
    }

    #[test]
    fn a_lone_escape_is_the_key_after_a_moment() {
        let mut decoder = Decoder::default();
        assert_eq!(told(decoder.take(b"\x1b")), "");
        assert_eq!(decoder.patience(), Some(KEY_WITHIN));
        assert_eq!(told(decoder.give_up()), "␛");
        decoder.take(b"\x1b");
        assert!(told(decoder.take(b"[A")).contains("Up"));
        // Half a character is none.
        decoder.take(b"\xf0\x9f");
        assert_eq!((told(decoder.give_up()).as_str(), decoder.patience()), ("", None));
    }

    #[test]
    fn large_pastes_take_no_time() {
        let line = "somewhat more than a hundred thousand bytes of text\r";
        let text = line.repeat(20_000);
        for (before, after) in [("\x1b[200~", "\x1b[201~"), ("", "")] {
            let sent = [before, &text, after].concat();
            let (mut decoder, began) = (Decoder::default(), Instant::now());
            let events: Vec<Event> = sent.as_bytes().chunks(4_095).flat_map(|chunk| decoder.take(chunk)).collect();
            assert!(events.iter().all(|event| matches!(event, Event::Paste(_))));
            let length: usize =
                events.iter().map(|event| if let Event::Paste(text) = event { text.len() } else { 0 }).sum();
            assert_eq!(length, text.len());
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        }
    }

    #[test]
    fn no_bytes_are_too_strange() {
        let mut seed = 7_u64;
        let mut decoder = Decoder::default();
        for _ in 0..20_000 {
            let mut random = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as usize
            };
            let alphabet = b"\x1b\x1b\x1b[[O<;:0129~MmuARZ\r\n\x03\x7f\xc3\xa9\xf0\x9f\xff x";
            let length = random() % 12;
            let bytes: Vec<u8> = (0..length).map(|_| alphabet[random() % alphabet.len()]).collect();
            decoder.take(&bytes);
            if random() % 4 == 0 {
                decoder.give_up();
                assert_eq!(decoder.patience(), None);
            }
        }
    }
}
