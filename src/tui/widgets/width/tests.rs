//! What all measure alike, and that nothing else is measured.

use std::{fs, path::Path};

use proptest::prelude::*;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

use super::*;

fn shown(text: &str) -> String {
    glyphs(text).map(|glyph| glyph.symbol).collect()
}

/// Every text that terminals, ratatui and Unicode's tables might measure differently, and how it is written.
const CASES: [(&str, &str, usize); 26] = [
    ("ｶﾞｷﾞX", "ガギX", 5),
    ("ﾊﾟﾋﾟ ｳﾞ ﾜﾞ ｱﾞ ﾞ", "パピ ヴ ヷ ｱ゛ ゛", 17),
    ("ｱｲｳ", "ｱｲｳ", 3),
    ("カ\u{3099}", "カ\u{3099}", 2),
    ("한글", "한글", 4),
    ("\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}", "한글", 4),
    ("가\u{11a8}", "각", 2),
    ("\u{1161}\u{11a8}", "ㅏㄱ", 4),
    ("\u{1100}", "\u{1100}", 2),
    ("e\u{301}a\u{308}\u{323}", "e\u{301}a\u{308}\u{323}", 2),
    ("\u{301}x", "◌\u{301}x", 2),
    ("z\u{300}\u{301}\u{302}\u{303}\u{304}\u{305}", "z\u{300}\u{301}\u{302}\u{303}", 1),
    ("👨\u{200d}👩\u{200d}👧!", "👨👩👧!", 7),
    ("👍🏽", "👍", 2),
    ("👩🏽\u{200d}🚀", "👩🚀", 4),
    ("❤\u{fe0f}⌚\u{fe0f}", "❤⌚", 3),
    ("1\u{fe0f}\u{20e3}", "1\u{20e3}", 1),
    ("🇯🇵🇩🇪x🇯", "JPDExJ", 6),
    ("🏴\u{e0067}\u{e0062}\u{e007f}", "🏴", 2),
    ("a\tb", "a    b", 6),
    ("a\r\nb\nc", "a b c", 5),
    ("a\u{200b}b\u{200d}c\u{feff}\u{ad}", "abc", 3),
    ("\u{202e}abc\u{202c}\u{2066}d\u{200f}", "abcd", 4),
    ("a\u{1b}[31m\u{7}\u{9b}", "a[31m", 5),
    ("你好！", "你好！", 6),
    ("لا ש", "لا ש", 4),
];

#[test]
fn every_cluster_is_written_in_a_form_that_all_measure_alike() {
    for (text, written, cells) in CASES {
        assert_eq!((shown(text).as_str(), width(text)), (written, cells), "{text:?}");
        for glyph in glyphs(text) {
            // A terminal that adds up characters, one that looks at clusters, and ratatui.
            let added: usize = glyph.symbol.chars().map(|c| c.width().unwrap_or(0)).sum();
            assert_eq!(added, glyph.cells, "{text:?}: {glyph:?}");
            assert_eq!(glyph.symbol.width(), glyph.cells, "{text:?}: {glyph:?}");
            assert_eq!(usize::from(glyph.symbol.cell_width()), glyph.cells, "{text:?}: {glyph:?}");
        }
    }
}

#[test]
fn names_are_cut_between_letters_and_sentences_between_words() {
    assert_eq!(clip("minutes.md", 20), "minutes.md");
    assert_eq!(clip("minutes.md", 6), "minut…");
    assert_eq!(clip("你好世界", 4), "你…");
    assert_eq!((clip("abc", 1), clip("abc", 0)), ("…".into(), String::new()));
    assert_eq!(clip_words("your message waits", 18), "your message waits");
    assert_eq!(clip_words("your message waits", 16), "your message…");
    assert_eq!(clip_words("your message waits", 13), "your message…");
    assert_eq!(clip_words("first, second", 9), "first…");
    assert_eq!(clip_words("a-very-long-name-of-one-word", 8), "a-very-…");
    assert_eq!(clip_words("a incomprehensibility", 12), "a incompreh…", "one letter would be too little");
}

#[test]
fn what_is_written_stays_in_its_cells_and_takes_what_it_covers() {
    let mut buf = Buffer::empty(Rect::new(0, 0, 6, 1));
    assert_eq!(put(&mut buf, 0, 0, "ab你c", 9, Style::new()), 5);
    assert_eq!(put(&mut buf, 3, 0, "x", 9, Style::new()), 4);
    assert_eq!(buf, Buffer::with_lines(["ab xc "]), "half of a wide character does not stay");
    watch::take();
    assert_eq!(put(&mut buf, 0, 0, "a你", 2, Style::new()), 1);
    assert_eq!(watch::take(), ["a你"]);
    assert_eq!(put(&mut buf, 9, 0, "z", 2, Style::new()), 9);
    assert_eq!(put(&mut buf, 0, 1, "z", 2, Style::new()), 0);
    put(&mut buf, 0, 0, "क्षि!", 9, Style::new());
    let cells = width("क्षि") as u16;
    assert_eq!(buf[(cells, 0)].symbol(), "!");
    assert!((0..cells).all(|x| buf[(x, 0)].cell_width() == 1), "narrow characters have a cell each");
}

/// No other file of the screen measures or writes text by rules of its own.
#[test]
fn widths_are_decided_nowhere_else() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tui")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            if entry.is_dir() {
                folders.push(entry);
            } else if name.ends_with(".rs") && !entry.parent().unwrap().ends_with("width") {
                let source = fs::read_to_string(&entry).unwrap();
                let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
                for word in ["UnicodeWidth", "graphemes(", ".set_stringn(", ".set_string(", ".set_line(", "Span::width"]
                {
                    assert!(!code.contains(word), "{}: {word}", entry.display());
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_measured_as_it_is_written(text in "\\PC{0,40}") {
        let mut buf = Buffer::empty(Rect::new(0, 0, 200, 1));
        let end = put(&mut buf, 0, 0, &text, 200, Style::new());
        prop_assert_eq!(usize::from(end), width(&text));
        for glyph in glyphs(&text) {
            let added: usize = glyph.symbol.chars().map(|c| c.width().unwrap_or(0)).sum();
            prop_assert!(glyph.cells > 0 && added == glyph.cells, "{:?}", glyph);
        }
        for cells in [0, 3, 9] {
            prop_assert!(width(&clip(&text, cells)) <= cells && width(&clip_words(&text, cells)) <= cells);
        }
    }
}
