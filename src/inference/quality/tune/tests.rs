//! The replica against the engine's forward pass, its gradients against differences, and a whole run.

use std::ops::ControlFlow;

use candle_core::{Device, Tensor};

use super::{TuneError, TuneOptions, replica::Replica, tune};
use crate::{
    attention::HitCounts,
    cache::{LaneCache, Policy, SequenceCache, Table},
    kernels::Pool,
    model::{BatchItem, Forward, LanguageModel, LogitRows, Reading, tiny},
    quality::EvalError,
};

fn model() -> LanguageModel {
    LanguageModel::open(&tiny::Tiny::default().temp(), None).unwrap()
}

fn words(model: &LanguageModel, len: usize) -> Vec<u32> {
    (0..len).map(|at| (at * at * 7 + at / 3 + 5) as u32 % model.shape.vocab as u32).collect()
}

/// The cache after `past`, and the logits of what follows as the engine finds them.
fn engine(model: &LanguageModel, past: &[u32], rows: &[u32]) -> (SequenceCache, Vec<f32>) {
    let pool = Pool::new(2);
    let mut forward = Forward::new();
    forward.set_exact(true);
    let mut hits = HitCounts::new(model.shape.layers);
    let mut lane = LaneCache::new(model.cache_shape(), Policy::Kv, None, None);
    let mut cache = lane.open().unwrap();
    lane.grow(&mut cache, past.len() + rows.len()).unwrap();
    let mut pass = |cache: &mut _, tokens: &[u32], logits| {
        let item = BatchItem { tokens, cache, copies: Vec::new(), reading: Reading::Exact, logits };
        forward.run(model, &pool, &mut [item], &mut hits);
        forward.logits().to_vec()
    };
    pass(&mut cache, past, LogitRows::None);
    let mut copy = lane.fork(&cache).unwrap();
    lane.grow(&mut copy, rows.len()).unwrap();
    let logits = pass(&mut copy, rows, LogitRows::All);
    (cache, logits)
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_replica_is_the_model() {
    let model = model();
    let tokens = words(&model, 90);
    let (past, expected) = engine(&model, &tokens[..70], &tokens[70..]);
    let replica = Replica::new(&model, &past, 20).unwrap();
    let mut x = replica.embed(&tokens[70..]).unwrap();
    for layer in 0..model.shape.layers {
        x = replica.forward(layer, &x).unwrap();
    }
    let found = flat(&replica.logits(&x).unwrap());
    assert_eq!(found.len(), expected.len());
    let most = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        // The cache holds 16-bit floats, the replica keeps its own rows as they are.
        assert!((found - expected).abs() < 0.004 * most, "{found}, expected {expected}");
    }
}

#[test]
fn gradients_are_what_differences_say() {
    let model = model();
    let tokens = words(&model, 60);
    let (past, _) = engine(&model, &tokens[..52], &tokens[52..]);
    let replica = Replica::new(&model, &past, 8).unwrap();
    let mut inputs = vec![replica.embed(&tokens[52..]).unwrap()];
    for layer in 0..model.shape.layers {
        inputs.push(replica.forward(layer, &inputs[layer]).unwrap());
    }
    let wave = |dims: &[usize], step: f32| {
        let count = dims.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|at| (at as f32 * step).sin()).collect();
        Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
    };
    // Of two seeds the second is looked at; the first must not get into it.
    let by_logits = [wave(&[8, model.shape.vocab], 0.9), wave(&[8, model.shape.vocab], 0.37)];
    let mut by = replica.logits_backward(&inputs[model.shape.layers], &by_logits).unwrap();
    let value = |from: usize, x: &Tensor| {
        let mut x = x.clone();
        for layer in from..model.shape.layers {
            x = replica.forward(layer, &x).unwrap();
        }
        let product = (replica.logits(&x).unwrap() * &by_logits[1]).unwrap();
        flat(&product).iter().map(|&value| f64::from(value)).sum::<f64>()
    };
    for layer in (0..model.shape.layers).rev() {
        let (by_input, inside) = replica.backward(layer, &inputs[layer], &by).unwrap();
        let direction = wave(inside.gradients[1].dims(), 0.53);
        let expected: f64 =
            flat(&(&inside.gradients[1] * &direction).unwrap()).iter().map(|&value| f64::from(value)).sum();
        let nudged = |by: f64| {
            let (x, ..) = replica.layer(layer, &inputs[layer], Some(&(&direction * by).unwrap())).unwrap();
            value(layer + 1, &x)
        };
        let found = (nudged(2e-3) - nudged(-2e-3)) / 4e-3;
        assert!((found - expected).abs() < 0.03 * expected.abs().max(1.0), "layer {layer}: {found}, {expected}");
        by = by_input;
    }
}

#[test]
fn a_profile_is_learnt_and_more_rows_lose_less() {
    let model = model();
    let texts = [words(&model, 200), words(&model, 260)[50..].to_vec()];
    let options = TuneOptions { context: 100, tokens: 60, rows: vec![24, 6, 12] };
    let mut calls = Vec::new();
    let mut progress = |progress: crate::progress::Progress| {
        calls.push((progress.done, progress.total));
        ControlFlow::Continue(())
    };
    let tuned = tune(&model, &Pool::new(2), &texts, &options, &mut progress).unwrap();
    assert_eq!(calls.last().map(|(done, total)| (*done, *total)), Some((calls.len(), calls.len())));
    let table: Table = Table::parse(&tuned.table.to_string()).unwrap();
    assert_eq!(table, tuned.table, "written and read back");
    assert_eq!(table.split.iter().map(|split| split.n).collect::<Vec<_>>(), [6, 12, 24]);
    let heads = model.shape.layers * model.shape.heads;
    for split in &table.split {
        let rows: u32 = split.rows.iter().flatten().sum();
        assert!((f64::from(rows) / heads as f64 - split.n as f64).abs() <= 0.5, "{rows} of {} each", split.n);
    }
    assert!(tuned.expected_kl.is_sorted_by(|a, b| a > b), "{:?}", tuned.expected_kl);
    for (kl, even) in tuned.expected_kl.iter().zip(&tuned.expected_even_kl) {
        assert!(kl < even, "{kl} is not better than {even}");
    }
    let again = tune(&model, &Pool::new(1), &texts, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(again.table, tuned.table, "the same texts give the same profile");
}

#[test]
fn what_is_held_out_is_measured_and_not_learnt_from() {
    let model = model();
    let options = TuneOptions { context: 100, tokens: 60, rows: vec![6, 12, 24] };
    let run = |text: &[u32]| {
        tune(&model, &Pool::new(2), &[text.to_vec()], &options, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let text = words(&model, 200);
    let tuned = run(&text);
    assert_eq!(tuned.learnt_tokens, 60);
    let held_out = tuned.held_out.unwrap();
    assert_eq!((held_out.tokens, held_out.kl.len()), (15, 3));
    assert!(held_out.kl.is_sorted_by(|a, b| a > b) && held_out.kl[2] > 0.0, "{held_out:?}");
    assert!(held_out.kl.iter().zip(&tuned.expected_kl).all(|(held_out, learnt)| held_out != learnt));

    // Other words there: another measure, and the same profile.
    let other = [&text[..160], &words(&model, 120)[70..]].concat();
    let elsewhere = run(&other);
    assert_eq!((&elsewhere.table, &elsewhere.expected_kl), (&tuned.table, &tuned.expected_kl));
    assert_ne!(elsewhere.held_out.unwrap().kl, held_out.kl);

    // A text that ends with what is learnt from is enough; then nothing is held out, and nothing is said of it.
    let short = run(&text[..161]);
    assert_eq!(short.table, tuned.table);
    assert_eq!(short.held_out, None);
}

#[test]
fn what_cannot_be_learnt_from_is_refused() {
    let model = model();
    let texts = [words(&model, 100)];
    let mut go = |_| ControlFlow::Continue(());
    let mut run = |texts: &[Vec<u32>], context, tokens, rows: Vec<usize>| {
        tune(&model, &Pool::new(1), texts, &TuneOptions { context, tokens, rows }, &mut go).map(|_| ())
    };
    assert!(matches!(run(&texts, 90, 20, vec![8]), Err(TuneError::Text(EvalError::Short { found: 100, needed: 111 }))));
    assert!(matches!(run(&texts, 0, 20, vec![8]), Err(TuneError::Text(EvalError::Empty))));
    assert!(matches!(run(&[], 50, 20, vec![8]), Err(TuneError::Nothing)));
    assert!(matches!(run(&texts, 50, 20, vec![]), Err(TuneError::Nothing)));
    let stopped =
        tune(&model, &Pool::new(1), &texts, &TuneOptions { context: 50, tokens: 20, rows: vec![8] }, &mut |_| {
            ControlFlow::Break(())
        });
    assert!(matches!(stopped, Err(TuneError::Text(EvalError::Cancelled))));
}
