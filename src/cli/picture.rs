//! `kcache picture`: the screen at one moment of a recorded run, as SVG.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::{Failure, output::print};
use crate::{
    config::{Config, ThemeName},
    engine::Event,
    tui::{Replay, input::keymap::Key},
};

/// The longest line of a recording, in bytes.
const LONGEST_LINE: u64 = 64 << 20;
/// The widest and the highest screen.
const LARGEST: u16 = 500;

/// What to draw, and how.
#[derive(Debug, Args)]
pub struct PictureArgs {
    /// A recorded run: events as JSON lines, as `--record` and `--headless` write them
    #[arg(long, value_name = "RUN.jsonl")]
    from: PathBuf,
    /// Columns and rows of the screen
    #[arg(long, value_name = "WxH", default_value = "160x48", value_parser = size)]
    size: (u16, u16),
    /// The moment, counted from the start of the run (25s, 2m); without it, the end
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<f64>,
    /// Colours
    #[arg(long, value_enum, value_name = "NAME", default_value_t = ThemeName::Dark)]
    theme: ThemeName,
    /// Keys pressed at that moment, in the words of the configuration: `esc space left`
    #[arg(long, value_name = "KEYS", value_delimiter = ' ', value_parser = key)]
    press: Vec<Key>,
    /// The file to write; without it the picture goes to stdout
    #[arg(long, value_name = "FILE.svg")]
    out: Option<PathBuf>,
}

/// Draws the picture.
pub fn run(args: &PictureArgs, config: &Config) -> Result<ExitCode, Failure> {
    let mut replay = Replay::new(config, args.size).map_err(Failure::misuse)?;
    let mut any = false;
    for event in events(&args.from)? {
        let event = event?;
        // What came first is the clock of the engine; a line out of order is still of its own moment.
        if args.at.is_none_or(|at_ms| event.t_ms <= at_ms) {
            replay.event(event);
            any = true;
        }
    }
    if !any {
        return Err(Failure::misuse(format!("{}: there is no event up to that moment", args.from.display())));
    }
    for &key in &args.press {
        replay.key(key);
    }
    let svg = replay.svg(args.theme);
    match &args.out {
        None => print(&svg)?,
        Some(path) => {
            fs::write(path, svg).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The events of a file; a line that is none is named by its number.
fn events(path: &Path) -> Result<impl Iterator<Item = Result<Event, Failure>>, Failure> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| Failure::misuse(format!("{name}: {error}")))?;
    let mut file = BufReader::new(file);
    let lines = std::iter::from_fn(move || line(&mut file).transpose());
    Ok(lines.enumerate().map(move |(at, line)| {
        let place = format!("{name}:{}", at + 1);
        let line = line.map_err(|error| Failure::misuse(format!("{place}: {error}")))?;
        let event: Event = serde_json::from_str(&line)
            .map_err(|error| Failure::misuse(format!("{place}: this is no event of a recorded run: {error}")))?;
        if event.t_ms.is_finite() && event.t_ms >= 0.0 {
            Ok(event)
        } else {
            Err(Failure::misuse(format!("{place}: t_ms is {}, which is no time", event.t_ms)))
        }
    }))
}

/// The next line, of a bounded length: a file without line breaks could have no end.
fn line(file: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    file.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    if line.len() as u64 == LONGEST_LINE {
        return Err(io::Error::other("the line is too long for an event"));
    }
    let text = String::from_utf8(line).map_err(|_| io::Error::other("the line is not text in UTF-8"))?;
    Ok((!text.is_empty()).then(|| text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn size(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| text.trim().parse().ok().filter(|number| (1..=LARGEST).contains(number));
    let (columns, rows) = text.split_once(['x', '×']).unwrap_or((text, ""));
    number(columns)
        .zip(number(rows))
        .ok_or_else(|| format!("write columns and rows, each from 1 to {LARGEST}, such as 160x48"))
}

/// Milliseconds of `500ms`, `25s`, `2m`.
fn moment(text: &str) -> Result<f64, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3600e3,
        _ => return Err("write a number and ms, s, m or h, such as 25s".into()),
    };
    let number: f64 = number.trim().parse().map_err(|_| format!("`{number}` is no number"))?;
    let ms = number * scale;
    if ms.is_finite() && ms >= 0.0 { Ok(ms) } else { Err("a moment is not before the start".into()) }
}

fn key(text: &str) -> Result<Key, String> {
    text.parse().map_err(|()| format!("`{text}` is no key; write `ctrl-n`, `alt-up`, `f2` or a single character"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::SplitMix64;

    #[test]
    fn sizes_and_moments_are_read_or_refused() {
        assert_eq!((size("160x48"), size("80×24")), (Ok((160, 48)), Ok((80, 24))));
        for text in ["", "160", "0x9", "9x0", "501x9", "axb", "1x2x3"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(["0s", "25s", "1.5m", "500ms"].map(moment), [Ok(0.0), Ok(25e3), Ok(90e3), Ok(500.0)]);
        for text in ["", "25", "-1s", "NaNs", "infs", "2 days"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    /// The first ten seconds of a real run: the demo, the default model.
    const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/run.jsonl");

    fn picture(from: &Path, at: Option<f64>, press: &str) -> Result<String, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let args = PictureArgs {
            from: from.to_owned(),
            size: (120, 40),
            at,
            theme: ThemeName::Dark,
            press: press.split_whitespace().map(|text| key(text).unwrap()).collect(),
            out: Some(folder.path().join("screen.svg")),
        };
        run(&args, &Config::default())?;
        Ok(fs::read_to_string(folder.path().join("screen.svg")).unwrap())
    }

    #[test]
    fn a_recorded_run_is_drawn_at_a_moment_and_after_keys() {
        let end = picture(Path::new(RUN), None, "").unwrap();
        assert!(end.starts_with("<svg") && end.trim_end().ends_with("</svg>"));
        for word in [">recorded<", ">SmolLM2-135M-Instruct<", ">fan<", ">Lighthouse<"] {
            assert!(end.contains(word), "{word} is not in the picture");
        }
        assert_eq!(end, picture(Path::new(RUN), Some(60e3), "").unwrap(), "the same run gives the same picture");
        let early = picture(Path::new(RUN), Some(1_200.0), "").unwrap();
        assert!(early.contains(">support.md<") && !early.contains(">fan<"));
        assert!(picture(Path::new(RUN), None, "esc 4").unwrap().contains(">Speed<"));
    }

    #[test]
    fn a_line_that_is_no_event_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.jsonl");
        let first = fs::read_to_string(RUN).unwrap().lines().next().unwrap().to_owned();
        for (line, reason) in [
            ("{", "this is no event"),
            ("{\"type\":\"token\",\"t_ms\":1}", "missing field"),
            ("{\"type\":\"dropped\",\"count\":1,\"t_ms\":-1}", "t_ms is -1"),
        ] {
            fs::write(&file, format!("{first}\n{line}\n")).unwrap();
            let Err(Failure::Misuse(text)) = picture(&file, None, "") else { panic!("{line} was taken") };
            assert!(text.contains("run.jsonl:2: ") && text.contains(reason), "{text}");
        }
        fs::write(&file, "").unwrap();
        assert!(matches!(picture(&file, None, ""), Err(Failure::Misuse(_))));
        assert!(matches!(picture(&folder.path().join("missing"), None, ""), Err(Failure::Misuse(_))));
    }

    /// Bytes of a real recording exchanged, a line cut, one put in: a picture comes, or the first line that is no event is
    /// named by its number.
    #[test]
    fn a_damaged_recording_is_drawn_or_its_first_bad_line_is_named() {
        let text = fs::read(RUN).unwrap();
        let mut random = SplitMix64(7);
        let mut below = |count: usize| (random.unit() * count as f64) as usize;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.jsonl");
        let (mut drawn, mut named) = (0, 0);
        for _ in 0..60 {
            let mut damaged = text.clone();
            for _ in 0..=below(3) {
                let at = below(damaged.len());
                match below(5) {
                    0 => damaged[at] = below(256) as u8,
                    1 => drop(damaged.drain(at..(at + below(200)).min(text.len() / 2).max(at))),
                    2 => damaged.insert(at, b'\n'),
                    // A digit for a digit: another figure, and still an event.
                    _ => damaged
                        .iter_mut()
                        .skip(at)
                        .find(|byte| byte.is_ascii_digit())
                        .into_iter()
                        .for_each(|byte| *byte = b'9'),
                }
            }
            fs::write(&file, &damaged).unwrap();
            let is_event = |line: &[u8]| {
                serde_json::from_slice::<Event>(line).is_ok_and(|event| event.t_ms.is_finite() && event.t_ms >= 0.0)
            };
            let lines = damaged.strip_suffix(b"\n").unwrap_or(&damaged).split(|&byte| byte == b'\n');
            let bad = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).position(|line| !is_event(line));
            match (picture(&file, None, "esc 5"), bad) {
                (Ok(svg), None) => {
                    assert!(svg.trim_end().ends_with("</svg>"));
                    drawn += 1;
                }
                (Err(Failure::Misuse(said)), Some(at)) => {
                    assert!(said.contains(&format!("run.jsonl:{}: ", at + 1)) && said.lines().count() == 1, "{said}");
                    named += 1;
                }
                (found, bad) => panic!("line {bad:?} is bad, and this came of it: {:?}", found.map(|svg| svg.len())),
            }
        }
        assert!(drawn > 5 && named > 5, "{drawn} {named}");
    }
}
