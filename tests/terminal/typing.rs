//! What arrives at the keyboard: pastes with and without marks, whole and broken, and keys without sense.

use std::{thread, time::Duration};

use crate::terminal::{LANES, Terminal, alone, home, places, tidy};

const ARGUMENTS: [&str; 3] = ["--no-demo", "--model", "m.gguf"];

fn start() -> Terminal {
    // Few tokens: a long answer would scroll the message away before anybody has looked at it.
    let few = [("KCACHE_SAMPLING_MAX_TOKENS", "8")];
    let terminal = Terminal::start(home(), (80, 24), &ARGUMENTS, &few);
    terminal.until("the whole screen", tidy);
    terminal
}

/// Whether these words stand in both transcripts.
fn asked(terminal: &Terminal, words: &str) -> bool {
    LANES.iter().all(|lane| terminal.pane(lane).contains(words))
}

#[test]
fn a_paste_without_an_end_does_not_lock_the_keyboard() {
    let _alone = alone();
    let mut terminal = start();
    terminal.press("\x1b[200~half of a tex");
    terminal.until_shown("half of a tex");
    terminal.press("t");
    terminal.until_shown("half of a text");
    // Ctrl-c does not wait.
    terminal.press("\x1b[200~ more");
    thread::sleep(Duration::from_millis(100));
    terminal.press("\x03");
    terminal.end().restored(0);
}

#[test]
fn lines_that_arrive_at_once_are_one_message_and_a_typed_line_is_sent() {
    let _alone = alone();
    let mut terminal = start();
    terminal.press("first line\rsecond line\rthird line\r");
    terminal.until_shown("third line");
    thread::sleep(Duration::from_millis(300));
    assert!(!LANES.iter().any(|lane| terminal.pane(lane).contains("first line")), "{}", terminal.text());
    terminal.press("\r");
    terminal.until("one message", |terminal| asked(terminal, "first line") && asked(terminal, "third line"));
    terminal.press("\x11");
    terminal.end().restored(0);

    let mut terminal = start();
    terminal.press("quickly typed\r");
    terminal.until("what was typed", |terminal| asked(terminal, "quickly typed"));
    terminal.press("\x11");
    terminal.end().restored(0);
}

#[test]
fn a_large_paste_is_there_at_once() {
    let _alone = alone();
    let text = "a line of some length, as documents have them\n".repeat(2_200);
    for (before, after) in [("\x1b[200~", "\x1b[201~"), ("", "")] {
        let mut terminal = start();
        terminal.press(&format!("{before}{text}the end{after}"));
        let took = terminal.until_shown("the end");
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert!(!asked(&terminal, "a line of some length"), "{}", terminal.text());
        terminal.press("\x03");
        terminal.end().restored(0);
    }
}

#[test]
fn a_dumb_terminal_is_told_what_to_use() {
    let _alone = alone();
    let ended = Terminal::start(home(), (80, 24), &ARGUMENTS, &[("TERM", "dumb")]).end();
    assert_eq!(ended.code, 2);
    assert!(ended.text.contains("TERM=dumb") && ended.text.contains("kcache --headless"), "{}", ended.text);
    assert_eq!(places(&ended.bytes, b"\x1b"), [0; 0], "nothing is drawn");
}

#[test]
fn keys_without_sense_and_sizes_do_no_harm() {
    let _alone = alone();
    let keys = [
        "a",
        "B",
        "é",
        "你",
        "👍🏽",
        "ｶﾞ",
        " ",
        "/",
        "?",
        "i",
        "g",
        "G",
        "j",
        "k",
        "z",
        "w",
        "x",
        "y",
        "n",
        "c",
        "t",
        "d",
        "1",
        "2",
        "3",
        "4",
        "5",
        "[",
        "]",
        "+",
        "-",
        "0",
        "\r",
        "\r",
        "\t",
        "\x1b",
        "\x7f",
        "\x1b[A",
        "\x1b[B",
        "\x1b[C",
        "\x1b[D",
        "\x1bOP",
        "\x1bOQ",
        "\x1bOR",
        "\x1bOS",
        "\x1b[15~",
        "\x1b[17~",
        "\x1b[20~",
        "\x1b[5~",
        "\x1b[6~",
        "\x1b[Z",
        "\x1b[1;3A",
        "\x1b[1;3B",
        "\x1bw",
        "\x1bx",
        "\x1bj",
        "\x0e",
        "\x12",
        "\x15",
        "\x18",
        "\x1b[200~two\rlines\x1b[201~",
        "\x1b[200~",
        "\x1b[201~",
        "\x1b[<0;5;5M",
        "\x1b[9999~",
        "\x1b[1;",
        "\u{0}",
        "/load sessions=3,context=64,tokens=4\r",
    ];
    let mut seed = 13_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut terminal = start();
    for at in 0..400 {
        if at % 20 == 19 {
            terminal.resize(1 + random(200) as u16, 1 + random(60) as u16);
        }
        terminal.press(keys[random(keys.len())]);
        thread::sleep(Duration::from_millis(random(12) as u64));
        if terminal.child.try_wait().unwrap().is_some() {
            break;
        }
    }
    // The help carries out what is chosen in it, to quit and to be suspended as well.
    if terminal.child.try_wait().unwrap().is_none() {
        terminal.signal("CONT");
        terminal.signal("TERM");
    }
    let ended = terminal.end();
    assert!([0, 143].contains(&ended.code), "{}: {}", ended.code, ended.text);
    assert!(!ended.log.contains("panic"), "{}", ended.log);
}
