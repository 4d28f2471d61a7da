//! Runs the chat template of a model file safely. It is a program of somebody else: it may loop, ask for gigabytes or
//! be nested without end, by mistake or on purpose, and must not take the engine with it.
//!
//! So everything has a bound: the template's length, the work of a rendering (minijinja's fuel, which also counts what
//! is created), the length of the result, and the time. minijinja works on a thread of its own with a large stack,
//! because parsing recurses as deep as the template is long, and values as deep as the fuel lasts.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use minijinja::{Environment, Error, ErrorKind, State, Value, syntax::SyntaxConfig};

use super::{ModelError, clock};

/// The longest template, in bytes. Those of well-known models have up to 20,000.
const MAX_SOURCE: usize = 128 << 10;
/// Fuel of a rendering without any text: more than a hundred times what a usual template needs.
const FUEL: u64 = 200_000;
/// Bytes of text for which there is one more unit of fuel. A unit pays for 64 bytes, so a template may handle each byte
/// 16 times.
const BYTES_PER_FUEL: u64 = 4;
/// The most fuel. A template can nest values one level deeper for every eight units.
const MAX_FUEL: u64 = 2_000_000;
/// The longest rendering: so many bytes, and so many more for each byte of the conversation.
const MAX_RENDERED: usize = 1 << 20;
const RENDERED_PER_BYTE: usize = 4;
/// Three times the stack that the deepest template and the deepest value need. Memory is taken only as it is used.
const STACK: usize = 256 << 20;
/// How long a template may take. Fuel ends nearly all of them in a second, but it does not count the
/// work of comparisons.
const LONGEST: Duration = Duration::from_secs(5);
/// The most characters of a reason that are shown.
const TOLD: usize = 300;
const NAME: &str = "chat";

/// A compiled template.
pub(super) struct Template {
    environment: Environment<'static>,
    /// A rendering took too long, and its thread may still be busy.
    endless: AtomicBool,
}

impl Template {
    /// Compiles `source`.
    pub fn new(source: String) -> Result<Self, ModelError> {
        if source.len() > MAX_SOURCE {
            return Err(refused(format!("it has {} bytes, and {MAX_SOURCE} are read at most", source.len())));
        }
        let environment = apart(move || {
            let mut environment = environment()?;
            environment.add_template_owned(NAME, source)?;
            Ok(environment)
        })?;
        Ok(Self { environment, endless: AtomicBool::new(false) })
    }

    /// What it makes of `context`, which holds `bytes` bytes of text.
    pub fn render(&self, context: Value, bytes: usize) -> Result<String, ModelError> {
        if self.endless.load(Ordering::Relaxed) {
            return Err(refused(too_long()));
        }
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(MAX_FUEL.min(FUEL + bytes as u64 / BYTES_PER_FUEL)));
        let rendered = apart(move || environment.get_template(NAME)?.render(context));
        if let Err(Ended::TooLong) = rendered {
            self.endless.store(true, Ordering::Relaxed);
        }
        let rendered = rendered?;
        let most = MAX_RENDERED.saturating_add(bytes.saturating_mul(RENDERED_PER_BYTE));
        if rendered.len() > most {
            return Err(refused(format!("it makes {} bytes of {bytes} bytes of text", rendered.len())));
        }
        Ok(rendered)
    }
}

/// What templates find: the methods of Python's texts and lists, and the functions that Hugging Face gives them.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    // Errors would otherwise hold, and show, every variable.
    environment.set_debug(false);
    // It writes every value on a line of its own, indented: the square of a depth.
    environment.remove_filter("pprint");
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", |why: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, why))
    });
    environment.add_function("strftime_now", |format: String| {
        clock::strftime_now(&format).map_err(|directive| {
            Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know `{directive}`"))
        })
    });
    Ok(environment)
}

/// A method of Python's. They are charged for what they return; this charges for what they read, and for the widths
/// that a format asks for, before the work is done.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let read = value.as_str().map(str::len).or_else(|| value.len()).unwrap_or(0);
    let widths = match (name, value.as_str()) {
        ("format", Some(format)) => numbers(format),
        _ => 0,
    };
    state.consume_fuel((read as u64).saturating_add(widths) / 64)?;
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// The sum of all numbers in a text.
fn numbers(text: &str) -> u64 {
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    numbers.fold(0, |sum: u64, digits| sum.saturating_add(digits.parse().unwrap_or(u64::MAX)))
}

/// How work on a template went wrong.
enum Ended {
    /// What minijinja says.
    Badly(String),
    /// Not within the time.
    TooLong,
}

impl From<Ended> for ModelError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Badly(why) => refused(why),
            Ended::TooLong => refused(too_long()),
        }
    }
}

/// Has minijinja work where there is stack enough, for a while. Values and errors end on that thread too: dropping them
/// goes as deep as they do.
fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Ended> {
    let (answer, answered) = mpsc::sync_channel(1);
    let started = thread::Builder::new().name("template".into()).stack_size(STACK).spawn(move || {
        // Nobody listens any more when it took too long.
        let _ = answer.send(work().map_err(reason));
    });
    if let Err(error) = started {
        return Err(Ended::Badly(format!("no thread to compute it on ({error})")));
    }
    match answered.recv_timeout(LONGEST) {
        Ok(result) => result.map_err(Ended::Badly),
        Err(RecvTimeoutError::Timeout) => Err(Ended::TooLong),
        Err(RecvTimeoutError::Disconnected) => Err(Ended::Badly("minijinja fails on it".to_owned())),
    }
}

/// The reason in an error of minijinja.
fn reason(error: Error) -> String {
    let why = match (error.kind(), error.detail()) {
        // What a template raised is its own words; everything else needs to say where.
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (ErrorKind::OutOfFuel, _) => "it does far more than a conversation needs; it may go round for ever".to_owned(),
        _ => error.to_string(),
    };
    match why.char_indices().nth(TOLD) {
        Some((end, _)) => format!("{}…", &why[..end]),
        None => why,
    }
}

fn too_long() -> String {
    format!("it does not come to an end within {} s", LONGEST.as_secs())
}

fn refused(why: String) -> ModelError {
    ModelError::Template { why }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use minijinja::context;

    use super::*;

    fn compile(source: &str) -> Result<Template, ModelError> {
        Template::new(source.to_owned())
    }

    fn render(source: &str, text: &str) -> Result<String, ModelError> {
        compile(source)?.render(context! { text }, text.len())
    }

    /// What is said of a template that is refused: one line, soon.
    fn refusal(source: &str) -> String {
        let began = Instant::now();
        let error = render(source, "hi").expect_err(&format!("{source:.60}")).to_string();
        assert!(began.elapsed() < LONGEST * 2, "{source:.60}: {:?}", began.elapsed());
        assert!(error.starts_with("the model's chat template: ") && error.lines().count() == 1, "{error}");
        assert!(error.chars().count() < TOLD + 40, "{error}");
        error
    }

    #[test]
    fn templates_that_go_round_or_ask_for_gigabytes_are_ended() {
        for source in [
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{{ 'a' * 10000000000 }}",
            "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            "{{ '{:>1000000000}'.format(1) }}",
            "{{ '%1000000000d' | format(1) }}",
            "{{ 'x' | indent(10000000000) }}",
            "{{ 'x'.replace('', 'y' * 1000000).replace('y', 'z' * 1000000) }}",
            "{% set s = 'x' * 5000000 %}{% for i in range(20000) %}{{ s.count('y') }}{% endfor %}",
            "{{ 'x' * 2000000 }}",
        ] {
            refusal(source);
        }
    }

    #[test]
    fn what_fuel_does_not_see_is_ended_by_the_clock_once() {
        let doubled = "{% set ns = namespace(x=[], y=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}\
                       {% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}";
        let template = compile(doubled).unwrap();
        let error = |template: &Template| template.render(context! {}, 0).unwrap_err().to_string();
        assert!(error(&template).contains("within 5 s"));
        let began = Instant::now();
        assert!(error(&template).contains("within 5 s"));
        assert!(began.elapsed() < LONGEST / 2, "it is not tried again");
    }

    #[test]
    fn depth_is_no_way_to_end_the_program() {
        let nested = |open: &str, times: usize, close: &str| format!("{{{{ {}1{} }}}}", open.repeat(times), close);
        let branches = format!("{{% if a %}}{}{{% endif %}}", "{%elif a%}".repeat(12_000));
        for source in [
            nested("(", 200_000, &")".repeat(200_000)),
            nested("(", 60_000, &")".repeat(60_000)),
            nested("[", 120_000, ""),
            "{% if true %}".repeat(10_000),
            branches.clone() + "{{ a.b.c }}",
            format!("{{{{ a{} }}}}", ".b".repeat(60_000)),
        ] {
            refusal(&source);
        }
        for source in [nested("-", 120_000, ""), nested("not ", 30_000, ""), nested("1+", 60_000, ""), branches] {
            render(&source, "hi").unwrap_or_else(|error| panic!("{source:.30}: {error}"));
        }
        let deep = "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% for j in range(1000) %}{% if loop.index * \
                    loop.index > -1 %}{% set ns.x = [ns.x] %}{% endif %}{% endfor %}{% endfor %}{{ ns.x | length }}";
        refusal(deep);
        for used in ["ns.x", "ns.x ~ ''", "ns.x | tojson", "ns.x == ns.y", "[ns.x, ns.y] | sort", "{ns.x: 1}"] {
            let built = "{% set ns = namespace(x=[], y=[]) %}{% for i in range(9000) %}{% set ns.x = [ns.x] %}{% set \
                         ns.y = [ns.y] %}{% endfor %}{% set used = ";
            // Long texts bring much fuel, and values become as deep as they can.
            let built = built.replace("9000", "70000");
            let template = compile(&format!("{built}{used} %}}done")).unwrap();
            let rendered = template.render(context! {}, 64 << 20);
            assert_eq!(rendered.as_deref().ok(), Some("done"), "{used}: {rendered:?}");
        }
    }

    #[test]
    fn long_texts_bring_the_fuel_that_they_need() {
        let text = "Ein Satz mit <|im_end|> darin. ".repeat(140_000);
        assert!(text.len() > 4 << 20);
        let usual = "{% set t = text | trim %}{% if t.startswith('<') %}{{ t.split('>')[-1] }}{% else %}{{ '[INST] ' + \
                     t + ' [/INST]' }}{% endif %}";
        assert_eq!(render(usual, &text).unwrap().len(), text.len() - 1 + 15);
    }
}
