//! A policy of your own beside `kv`: how far its predictions are from full attention, and how many rows it reads.
//!
//! `cargo run --release --example compare_policies -- kcache:n=32,tail=none`

use std::{env, error::Error, ops::ControlFlow, sync::atomic::AtomicBool};

use kcache::{
    cache::Policy,
    demo,
    kernels::Pool,
    model::{LanguageModel, source},
    quality::{EvalOptions, evaluate, kl_mean, top1},
    telemetry::default_threads,
};

fn main() -> Result<(), Box<dyn Error>> {
    let spelling = env::args().nth(1).unwrap_or_else(|| "kcache:n=64,tail=mean,dense=1".to_owned());
    // A spelling that makes no sense is an error that says what is allowed.
    let own: Policy = spelling.parse()?;

    let file = source::ensure_default(&mut |_| {}, &AtomicBool::new(false))?;
    let model = LanguageModel::open(&file, None)?;
    let pool = Pool::new(default_threads());
    let text = model.tokenizer.encode(&demo::text());

    // The context is computed exactly. Then each policy decodes the same tokens, and full attention beside it.
    let policies = vec![("kv".to_owned(), Policy::Kv), (spelling, own.on(model.id())?)];
    let options = EvalOptions { context: 512, tokens: 64, policies, exact: false };
    let evaluation = evaluate(&model, &pool, &text, &options, &mut |_| ControlFlow::Continue(()))?;

    println!("{:<32} {:>10} {:>10} {:>10}", "policy", "KL (nats)", "same top-1", "V rows");
    for score in &evaluation.scores {
        let (kl, same) = (kl_mean(&score.tokens), 100.0 * top1(&score.tokens));
        println!("{:<32} {kl:>10.5} {same:>8.1} % {:>10.1}", score.policy, score.rows_mean);
    }
    Ok(())
}
