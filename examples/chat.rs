//! The engine as a library: one question to the default model, answered by both policies at once.
//!
//! `cargo run --release --example chat -- "Why is the sky blue?"`

use std::{env, error::Error, sync::Arc, sync::atomic::AtomicBool};

use kcache::{
    engine::{Engine, EngineOptions, EventKind, GenerationOptions, Lane, LaneOptions, Request, SessionId},
    model::{LanguageModel, source},
    telemetry::default_threads,
};

fn main() -> Result<(), Box<dyn Error>> {
    let text = env::args().nth(1).unwrap_or_else(|| "Name three rivers in Europe.".to_owned());

    // The first call downloads the model into the user's data folder.
    let file = source::ensure_default(&mut |_| {}, &AtomicBool::new(false))?;
    let model = Arc::new(LanguageModel::open(&file, None)?);

    // A lane is a policy with its own cache. Both answer the same question, step by step.
    let lane = |lane, policy: &str| -> Result<LaneOptions, Box<dyn Error>> {
        Ok(LaneOptions { lane, policy: policy.parse()?, device_budget: None, host_budget: None })
    };
    let lanes = vec![lane(Lane::KCache, "kcache:n=128")?, lane(Lane::Kv, "kv")?];
    let (engine, events) =
        Engine::start(model, EngineOptions { threads: default_threads(), lanes, ..EngineOptions::default() })?;

    // Requests go in, and everything that happens comes out as an event.
    let session = SessionId(1);
    let requests = engine.ops();
    requests.send(Request::Open { session, name: "example".into(), system: None, lanes: Lane::ALL.to_vec() })?;
    let options = GenerationOptions { max_tokens: 64, ..GenerationOptions::default() };
    requests.send(Request::SubmitMessage { session, document: None, text, options })?;

    let mut answers = [String::new(), String::new()];
    let mut running = Lane::ALL.len();
    while running > 0 {
        match events.recv().ok_or("the engine has ended")?.kind {
            EventKind::Token(token) => answers[token.lane as usize] += &token.text,
            EventKind::Finished(finished) => {
                running -= 1;
                let (lane, usage) = (finished.lane, &finished.usage);
                println!("{lane}: {} tokens in {:.0} ms", usage.completion_tokens, usage.total_ms);
            }
            EventKind::Error { message, .. } => return Err(message.into()),
            _ => {}
        }
    }
    for lane in Lane::ALL {
        println!("\n{lane}:\n{}", answers[lane as usize].trim());
    }
    Ok(())
}
