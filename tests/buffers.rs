//! The buffers of a step against what is booked for them.

mod support;

use kcache::{
    attention::HitCounts,
    cache::{LaneCache, Policy},
    engine::workspace_bytes,
    kernels::Pool,
    model::{BatchItem, Forward, LogitRows, Reading, StepSize},
};
use proptest::prelude::*;
use support::{open, tiny::Tiny};

fn policies() -> impl Strategy<Value = Policy> {
    let chosen = (1usize..200, 0usize..3, any::<bool>(), any::<bool>(), 0usize..3);
    let chosen = chosen.prop_map(|(n, dense, group, q8, more)| {
        let select = if group { "group" } else { "head" };
        let (k, more) = (if q8 { "q8" } else { "f16" }, ["", ",p=0.8", ",buffer=24"][more]);
        format!("kcache:n={n},dense={dense},select={select},k={k}{more}").parse().unwrap()
    });
    prop_oneof![Just(Policy::Kv), Just(Policy::KvQ8), chosen]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever a step does, its buffers are no larger than what is booked for steps of its size.
    #[test]
    fn they_stay_within_what_is_booked(
        policy in policies(), lens in prop::collection::vec(1usize..400, 1..6), chunk in 1usize..80, threads in 1usize..4,
        probe: bool,
    ) {
        let model = open(&Tiny::default());
        let pool = Pool::new(threads);
        let (sequences, longest) = (lens.len(), lens.iter().max().unwrap() + 3);
        let decode_rows = if probe { 2 * sequences } else { sequences };
        let size = StepSize { prompt_rows: chunk, decode_rows, longest, threads };
        let (mut forward, mut hits) = (Forward::new(), HitCounts::new(model.shape.layers));
        forward.reserve(&model, size);
        let (reserved, booked) = (forward.bytes(), size.bytes(&model));
        // What is not reserved is what threads work in.
        prop_assert!(reserved <= booked && booked < reserved + (threads << 19) as u64, "{reserved} {booked}");

        let mut lane = LaneCache::new(model.cache_shape(), policy, None, None);
        let mut caches = Vec::new();
        for &len in &lens {
            let mut cache = lane.open().unwrap();
            let tokens: Vec<u32> = (0..len).map(|at| (at * 7 % model.shape.vocab) as u32).collect();
            for tokens in tokens.chunks(chunk) {
                lane.grow(&mut cache, tokens.len()).unwrap();
                let (reading, logits) = (Reading::Exact, LogitRows::Last);
                let item = BatchItem { tokens, cache: &mut cache, copies: Vec::new(), reading, logits };
                forward.run(&model, &pool, &mut [item], &mut hits);
                prop_assert!(forward.bytes() <= booked, "prefill: {} {booked}", forward.bytes());
            }
            caches.push(cache);
        }
        let reading = if probe { Reading::Probed(policy, Policy::Kv) } else { Reading::Policy(policy) };
        for token in 0..3 {
            let tokens = [token];
            let mut items = Vec::new();
            for cache in &mut caches {
                lane.grow(cache, 1).unwrap();
                items.push(BatchItem { tokens: &tokens, cache, copies: Vec::new(), reading, logits: LogitRows::Last });
            }
            forward.run(&model, &pool, &mut items, &mut hits);
            let used = forward.bytes();
            prop_assert!(reserved < used && used <= booked, "decoding: {reserved} {used} {booked}");
        }
    }
}

#[test]
fn the_estimate_for_a_budget_is_that_of_the_longest_sequences() {
    let model = open(&Tiny::default());
    let of = |decode_rows, longest| StepSize { prompt_rows: 64, decode_rows, longest, threads: 2 }.bytes(&model);
    assert_eq!(workspace_bytes(&model, 2, 64, 1), of(16, model.context()));
    assert_eq!(workspace_bytes(&model, 2, 64, 17), of(32, model.context()));
    assert!(of(16, model.context()) > of(16, model.context() / 2) && of(16, 100) > of(8, 100));
}
