//! What comes from outside and is not what it should be: model files, templates, texts and configurations that are
//! wrong, damaged or hostile. Every one gets an answer or one line, soon, and never a panic.

#[path = "support/home.rs"]
mod home;
mod support;

use std::{
    fs,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use candle_core::quantized::gguf_file::Value;
use home::{Home, fine, stderr, stdout};
use kcache::{
    attention::HitCounts,
    cache::{LaneCache, Policy},
    config::Layers,
    kernels::Pool,
    model::{BatchItem, ChatMessage, Forward, Gguf, LanguageModel, LogitRows, ModelInfo, Reading, Role},
};
use support::tiny::Tiny;

/// How long one hostile input may take; a template may take five seconds.
const SOON: Duration = Duration::from_secs(20);

fn chat(home: &Home, model: &Path, arguments: &[&str]) -> Output {
    let model = model.to_str().unwrap();
    home.run(&[&["chat", "hi", "--threads", "1", "--max-tokens", "2", "--model", model], arguments].concat())
}

fn info(home: &Home, model: &Path) -> Output {
    home.run(&["model", "info", model.to_str().unwrap()])
}

fn one_line(output: &Output) -> String {
    let said = stderr(output);
    assert!(said.starts_with("kcache: ") && said.lines().count() == 1, "one line: {said}");
    said
}

#[test]
fn info_names_what_chat_refuses_with_the_same_exit_code() {
    let home = Home::new();
    let with = |key: &str, value: Value| Tiny { metadata: vec![(key.to_owned(), value)], ..Tiny::default() };
    for (tiny, word) in [
        (with("tokenizer.ggml.eos_token_id", Value::U32(999)), "eos_token_id"),
        (with("tokenizer.ggml.pre", Value::String("qwen9".into())), "pre-tokenizer `qwen9`"),
        (Tiny { rows: Some(300), without: vec!["llama.vocab_size".into()], ..Tiny::default() }, "320 tokens for an"),
        (with("llama.context_length", Value::U32(2_000_000_000)), "context_length"),
        (Tiny { chat_template: Some("{% nonsense %}".into()), ..Tiny::default() }, "chat template"),
        (Tiny { chat_template: Some("(".repeat(200_000)), ..Tiny::default() }, "200000 bytes"),
        (with("general.architecture", Value::String("mamba".into())), "mamba"),
    ] {
        let path = tiny.temp();
        for output in [chat(&home, &path, &[]), info(&home, &path)] {
            let said = one_line(&output);
            assert!(said.contains(word) && output.status.code() == Some(2), "{word}: {:?} {said}", output.status);
        }
    }
    let tiny = with("tokenizer.ggml.eos_token_id", Value::U32(999));
    assert!(stdout(&info(&home, &tiny.temp())).contains("2 layers"), "what can be read is shown");
}

#[test]
fn templates_that_cannot_be_used_end_in_one_line() {
    let home = Home::new();
    for (template, word) in [
        ("{# nothing #}", "no tokens"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "for ever"),
        ("{{ 'a' * 100000000000 }}", "more than a conversation needs"),
    ] {
        let path = Tiny { chat_template: Some(template.into()), ..Tiny::default() }.temp();
        let began = Instant::now();
        for (output, code) in [(chat(&home, &path, &[]), 1), (info(&home, &path), 2)] {
            let said = one_line(&output);
            assert!(said.contains("chat template") && said.contains(word), "{said}");
            assert_eq!(output.status.code(), Some(code), "{said}");
        }
        assert!(began.elapsed() < SOON);
    }
}

#[test]
fn a_context_of_millions_is_computed_in() {
    let home = Home::new();
    let path = Tiny { context: 10 << 20, ..Tiny::default() }.temp();
    fine(&info(&home, &path));
    let model = LanguageModel::open(&path, None).unwrap();
    let tokens = model.tokenizer.encode("hello in the hall");
    let logits = step(&model, &Pool::new(1), &tokens);
    assert!(logits.len() == model.shape.vocab && logits.iter().all(|logit| logit.is_finite()));
}

#[test]
fn a_byte_order_mark_is_not_read_and_foreign_encodings_are_told() {
    let home = Home::new();
    let path = Tiny { endless: true, ..Tiny::default() }.temp();
    let say = |arguments: &[&str], input: &[u8]| {
        let model = path.to_str().unwrap();
        let always = ["chat", "--json", "--threads", "1", "--max-tokens", "1", "--model", model];
        let mut command = home.command(&[&always, arguments].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (report["usage"]["prompt_tokens"].as_u64().unwrap(), stderr(&output))
    };
    let text = "吾輩は猫である。名前はまだ無い。";
    let bytes = say(&["-"], text.as_bytes());
    assert_eq!(bytes.1, "");
    let marked = format!("\u{feff}{text}");
    assert_eq!(say(&["-"], marked.as_bytes()), bytes);
    assert_eq!(say(&[marked.as_str()], b""), bytes);
    let (japanese, _, _) = encoding_rs::SHIFT_JIS.encode(text);
    let notice = |name: &str| format!("kcache: {name} is not in UTF-8; it is read as Shift_JIS\n");
    assert_eq!(say(&["-"], &japanese), (bytes.0, notice("standard input")));

    fs::write(home.path().join("neko.txt"), &japanese).unwrap();
    fs::write(home.path().join("neko.md"), &marked).unwrap();
    let file = |name: &str| say(&["What?", "--file", name], b"");
    assert_eq!(file("neko.txt"), (file("neko.md").0, notice("neko.txt")));
    let system = |text: &str| say(&["hi", "--system", text], b"");
    assert_eq!(system("\u{feff}Be brief."), system("Be brief."));
}

/// SplitMix64: the same mutants in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Damages `bytes` in one of the ways in which files are damaged, or made to do damage.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const SIZES: [u64; 8] = [0, 1, 7, 1 << 16, 1 << 31, 1 << 32, 1 << 62, u64::MAX];
        let at = self.below(bytes.len());
        match self.below(6) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.next() as u8,
            2 | 3 => {
                let size = SIZES[self.below(SIZES.len())].to_le_bytes();
                let len = if self.below(2) == 0 { 4 } else { 8 };
                let end = bytes.len().min(at + len);
                bytes[at..end].copy_from_slice(&size[..end - at]);
            }
            4 => {
                let from = self.below(bytes.len());
                let len = self.below(64).min(bytes.len() - from.max(at));
                bytes.copy_within(from..from + len, at);
            }
            _ => {
                let end = bytes.len().min(at + self.below(16));
                bytes.drain(at..end);
            }
        }
    }
}

/// Reads a file as far as it can be read, and has a model that opens compute a step.
fn use_up(path: &Path, pool: &Pool) -> bool {
    let Ok(gguf) = Gguf::open(path) else { return false };
    let info = ModelInfo::from_gguf(&gguf);
    let checked = LanguageModel::check(&gguf);
    let opened = LanguageModel::open(path, Some(256));
    assert_eq!(checked.is_ok(), opened.is_ok(), "a check tells what opening says");
    let (Ok(model), Ok(_)) = (opened, info) else { return false };
    let messages = [ChatMessage::new(Role::User, "hello in the hall")];
    let Ok(tokens) = model.chat.prompt(&model.tokenizer, &messages) else { return true };
    model.tokenizer.decode(&tokens);
    step(&model, pool, &tokens[..tokens.len().min(8)]);
    true
}

/// The logits after `tokens`, or none where the model's context is too short for them.
fn step(model: &LanguageModel, pool: &Pool, tokens: &[u32]) -> Vec<f32> {
    if tokens.len() > model.context() {
        return Vec::new();
    }
    let mut lane = LaneCache::new(model.cache_shape(), Policy::Kv, None, None);
    let mut cache = lane.open().unwrap();
    lane.grow(&mut cache, tokens.len()).unwrap();
    let (reading, logits) = (Reading::Exact, LogitRows::Last);
    let item = BatchItem { tokens, cache: &mut cache, copies: Vec::new(), reading, logits };
    let mut forward = Forward::new();
    forward.run(model, pool, &mut [item], &mut HitCounts::new(model.shape.layers));
    forward.logits().to_vec()
}

/// The most memory that this process has held, in KiB.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// `KCACHE_TEST_MUTANTS=1000000` makes more of them: `just mutants`.
#[test]
fn mutants_of_a_header_neither_panic_nor_hang_nor_take_the_memory() {
    let mutants: u64 = std::env::var("KCACHE_TEST_MUTANTS").map_or(2_000, |count| count.parse().unwrap());
    let tiny =
        Tiny { layers: 1, hidden: 32, heads: 2, kv_heads: 1, ffn: 32, vocab: Tiny::MIN_VOCAB, ..Tiny::default() };
    let whole = fs::read(tiny.temp()).unwrap();
    let header = whole.windows(18).rposition(|part| part == b"output_norm.weight").unwrap() + 18 + 4 + 8 + 4 + 8;
    let (path, pool) = (tempfile::NamedTempFile::new().unwrap().into_temp_path(), Pool::new(1));
    fs::write(&path, &whole).unwrap();
    assert!(use_up(&path, &pool), "the tiny model itself is fine");
    let before = most_memory();
    let (done, results) = mpsc::sync_channel(0);
    thread::spawn(move || {
        for seed in 0..mutants {
            let mut random = Random(seed);
            let mut bytes = whole[..header].to_vec();
            for _ in 0..1 + random.below(3) {
                random.mutate(&mut bytes);
            }
            bytes.extend_from_slice(&whole[header..]);
            fs::write(&path, &bytes).unwrap();
            let result = catch_unwind(AssertUnwindSafe(|| use_up(&path, &pool)));
            if done.send((seed, result.ok(), most_memory().saturating_sub(before) >> 10)).is_err() {
                break;
            }
        }
    });
    let mut opened = 0;
    for expected in 0..mutants {
        let result = results.recv_timeout(SOON);
        let (seed, result, grown) = result.unwrap_or_else(|_| panic!("mutant {expected} hangs"));
        opened += u64::from(result.unwrap_or_else(|| panic!("mutant {seed} panics")));
        assert!(grown < 512, "mutant {seed} takes {grown} MiB");
    }
    println!("{opened} of {mutants} mutants open");
    assert!(opened > mutants / 20 && opened < mutants, "mutants are damaged, but not always mortally: {opened}");
}

#[test]
fn odd_prompts_are_encoded_and_computed() {
    let model = support::open(&Tiny::default());
    let pool = Pool::new(1);
    let control = "<|im_end|>".repeat(300);
    for text in [
        "",
        " ",
        "\0",
        "\u{feff}",
        "\u{f0000}\u{ffffd}",
        "\u{202e}abc\u{202c}",
        "👩\u{200d}👩\u{200d}👧",
        "e\u{301}".repeat(400).as_str(),
        "\x1b[2J\x07",
        "{{ 7 * 7 }}{% for %}",
        &control,
        &"a".repeat(5_000),
        &" ".repeat(5_000),
        &"\n".repeat(500),
        "ｶﾞｷﾞ",
        "<|im_",
        "\u{10ffff}",
        "’“”…",
        "0".repeat(2_000).as_str(),
    ] {
        let ids = model.chat.prompt(&model.tokenizer, &[ChatMessage::new(Role::User, text)]).unwrap();
        assert!(model.tokenizer.decode(&ids).contains(text), "{text:?}");
        let logits = step(&model, &pool, &ids[..ids.len().min(64)]);
        assert!(!logits.is_empty() && logits.iter().all(|logit| logit.is_finite()), "{text:?}");
    }
}

#[test]
fn mutants_of_the_configuration_are_read_or_refused_line_by_line() {
    let home = Home::new();
    let file = home.path().join("config.toml");
    let whole = kcache::config::DEFAULT_TOML;
    let values =
        ["-1", "0", "1e999", "nan", "\"\"", "[]", "{}", "true", "99999999999999999999", "'\u{1b}[2J'", "\"\\u0000\""];
    for seed in 0..400 {
        let mut random = Random(seed);
        let mut bytes = if seed % 2 == 0 {
            let mut bytes = whole.as_bytes().to_vec();
            random.mutate(&mut bytes);
            bytes
        } else {
            // Keys as they are, with values that they may not have; comments become settings.
            let line = |line: &str| match line.trim_start_matches("# ").split_once(" = ") {
                Some((key, _)) if !key.contains(' ') => format!("{key} = {}\n", values[random.below(values.len())]),
                _ => format!("{line}\n"),
            };
            whole.lines().map(line).collect::<String>().into_bytes()
        };
        if seed % 7 == 0 {
            bytes.splice(..0, *b"\xef\xbb\xbf");
        }
        fs::write(&file, &bytes).unwrap();
        match Layers::from_file(&file).and_then(|layers| layers.config()) {
            Ok(_) => {}
            Err(error) => assert!(error.to_string().contains("config.toml"), "{seed}: {error}"),
        }
    }
}
